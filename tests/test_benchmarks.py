"""Every benchmark can be chosen by name, and its stored results still make its table."""

import importlib
import json
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "examples")]

import learning_curves  # noqa: E402
import run  # noqa: E402


@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_benchmark(name):
    module = importlib.import_module(name)
    timed = hasattr(module, "cases")
    assert timed != hasattr(module, "measure")
    if timed:
        groups = dict(module.cases(quick=True))
        assert all(callable(make) for group in groups.values() for make in group.values())
    for path in (BENCHMARKS / "results").glob(f"{name}-*.json"):
        stored = json.loads(path.read_text())
        assert {"command", "seed", "versions", "machine"} <= set(stored)
        table = run.timing_table if timed else module.table
        assert "---:" in table(stored["results"]), path


@pytest.mark.parametrize(
    "path", sorted(learning_curves.RESULTS.glob("*.json")), ids=lambda path: path.stem
)
def test_stored_learning_curves(path):
    account = json.loads(path.read_text())
    settings = account["settings"]
    assert path.stem == f"{learning_curves.name_of(settings)}-seed{settings['seed']}"
    assert {"command", "versions", "machine"} <= set(account)
    lengths = {len(values) for values in (account["seconds"], *account["history"].values())}
    assert lengths == {len(account["seconds"])}


def test_a_solved_run_keeps_its_last_value():
    assert learning_curves.extended([0.5, 1.0], 4).tolist() == [0.5, 1.0, 1.0, 1.0]


def test_median_and_ratios():
    result = run.time_in_turn("group", {"one": lambda: lambda: None}, repeats=2)
    assert set(result["seconds"]) == {"one"}
    assert len(result["all_seconds"]["one"]) == 2
    assert run.ratios({"fast": 1.0, "slow": 4.0}, [("fast", "slow"), ("fast", "absent")]) == {
        "fast / slow": 4.0
    }


def test_what_is_not_installed_is_skipped_with_a_reason():
    def missing():
        raise ModuleNotFoundError("No module named 'dnc'", name="dnc")

    result = run.time_in_turn("group", {"dnc": missing}, repeats=1)
    assert result["skipped"] == {"dnc": "dnc is not installed"}
