"""Every benchmark can be chosen by name, and its stored results still make its table."""

import doctest
import importlib
import json
import pathlib
import sys
import types

import numpy as np
import pytest

import keras_mnm

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "examples")]

import babi_stories  # noqa: E402
import exchanged_rule  # noqa: E402
import learning_curves  # noqa: E402
import markdown_table  # noqa: E402
import preset_stages  # noqa: E402
import run  # noqa: E402
import sort_errors  # noqa: E402
import write_rates  # noqa: E402


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


def test_a_table_in_markdown():
    tried = doctest.testmod(markdown_table)
    assert tried.attempted
    assert not tried.failed


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


def an_account(seed, accuracy, **settings):
    usual = {"task": "dictionary", "support_size": 4, "length": 1, "model": "lstm", "steps": 1000}
    settings = usual | settings
    return {
        "settings": {**settings, "seed": seed, "start_from": None},
        "updates": 100 * len(accuracy),
        "seconds": [2.0 * (i + 1) for i in range(len(accuracy))],
        "history": {"accuracy": accuracy},
    }


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Writes accounts where `learning_curves` looks for them."""
    monkeypatch.setattr(learning_curves, "RESULTS", tmp_path)

    def store(*accounts):
        for account in accounts:
            settings = account["settings"]
            name = f"{learning_curves.name_of(settings)}-seed{settings['seed']}.json"
            (tmp_path / name).write_text(json.dumps(account))

    return store


def test_a_solved_run_keeps_its_last_value(stored):
    stored(an_account(0, [0.5, 1.0]), an_account(1, [0.2, 0.4, 0.6, 0.8]))
    updates, values = learning_curves.curves("dictionary-4x1", "lstm", "accuracy")
    assert updates.tolist() == [100, 200, 300, 400]
    assert values.tolist() == [[0.5, 1.0, 1.0, 1.0], [0.2, 0.4, 0.6, 0.8]]
    assert "| dictionary-4x1 | LSTM | 2 | 0.900 ± 0.141 | 400 | 200, - |" in learning_curves.table()
    assert learning_curves.curves("dictionary-4x1", "mnm-p", "accuracy") is None


def test_the_maze_is_drawn_against_episodes(stored, tmp_path, monkeypatch):
    maze = {
        "settings": {"task": "maze", "model": "plastic", "parallel": 32, "seed": 0}
        | {"steps": 30, "steps_per_epoch": 10},
        "updates": 30,
        "seconds": [1.0, 2.0, 3.0],
        "history": {"reward": [50.0, 180.0, 190.0]},
    }
    stored(maze)
    episodes, values = learning_curves.curves("maze", "plastic", "reward")
    assert episodes.tolist() == [320, 640, 960]
    assert values.tolist() == [[50.0, 180.0, 190.0]]
    assert "| 1 | 190.000 | 960 | 640 |" in learning_curves.table()
    monkeypatch.setattr(learning_curves, "DOCS", tmp_path)
    learning_curves.draw()
    assert (tmp_path / "maze.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_different_settings_are_not_averaged(stored):
    for one in ({"steps": 5}, {}):
        stored(an_account(0, [0.5], **one), an_account(1, [0.5], steps=7))
        with pytest.raises(ValueError, match="differ in more than their seeds: steps by seed is"):
            learning_curves.curves("dictionary-4x1", "lstm", "accuracy")


def test_only_the_groups_that_fit_are_timed():
    competitors = {"one": lambda: lambda: None}
    cases = lambda quick: [("a", competitors), ("b", {**competitors, "two": competitors["one"]})]
    benchmark = types.SimpleNamespace(cases=cases, RATIOS=())
    args = types.SimpleNamespace(only="two", repeats=1, quick=False)
    assert list(run.time_cases(benchmark, args)) == ["b"]
    args.only = "three"
    with pytest.raises(SystemExit, match="'three' fits none of one, two"):
        run.time_cases(benchmark, args)


def test_runs_in_other_numbers_of_threads_are_averaged(stored):
    stored(an_account(0, [0.5], threads=2), an_account(1, [0.7]))
    _, values = learning_curves.curves("dictionary-4x1", "lstm", "accuracy")
    assert values.tolist() == [[0.5], [0.7]]


def test_kernels_are_told_apart():
    text = """
  %z = f32[32,3,100]{2,1,0} parameter(0)
  %m = f32[32,100,100]{2,1,0} parameter(1)
  %k = f32[32,20,100]{2,1,0} parameter(2)
  %w = f32[100,400]{1,0} parameter(3)
  %x = f32[32,100]{1,0} parameter(4)
  %one = f32[32,3,100]{2,1,0} dot(%z, %m), lhs_contracting_dims={2}
  %two = f32[32,3,20]{2,1,0} dot(%z, %k), lhs_contracting_dims={2}
  %three = f32[32,100,100]{2,1,0} dot(%k, %k), lhs_contracting_dims={1}
  %four = f32[32,400]{1,0} dot(%x, %w), lhs_contracting_dims={1}
  %five = f32[32,100,100]{2,1,0} fusion(%m), kind=kLoop
  ROOT %six = f32[32,100]{1,0} fusion(%x), kind=kLoop
"""
    shape = importlib.import_module("implementations").Shape()
    kinds = importlib.import_module("time_profile").kinds_of_kernels(text, shape)
    words = ("with the memory", "low-rank", "outer", "dense", "memories copied", "element-wise")
    for name, word in zip(("one", "two", "three", "four", "five", "six"), words):
        assert word in kinds[name]
    assert len(kinds) == 6


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


def test_the_models_of_sort_errors_are_presets():
    assert set(sort_errors.MODELS) <= set(keras_mnm.list_presets())


def test_the_models_of_write_rates_are_presets():
    assert set(write_rates.MODELS) <= set(keras_mnm.list_presets())


def test_local_writes_are_exchanged_for_gradients():
    assert set(exchanged_rule.PRESETS) <= set(keras_mnm.list_presets())
    (result,) = exchanged_rule.measure(quick=True).values()
    assert result["local"] == 1.0
    assert set(result["gradient"]) == {"0.01"}


def test_answers_are_explained_by_the_vectors_that_they_mix():
    ranked = np.random.default_rng(0).integers(2, size=(50, 20, 8)).astype(float)
    answers = 0.7 * ranked[:, :16] + 0.3 * ranked[:, 1:17]
    weights = sort_errors.weights_by_rank(ranked, answers)
    expected = {"-3": 0, "-2": 0, "-1": 0, "0": 0.7, "1": 0.3, "2": 0, "3": 0}
    assert weights == pytest.approx(expected, abs=1e-9)
    gaps = sort_errors.gaps_to_the_nearest(np.array([[3.0, 2.5, 0.0]]))
    assert gaps.tolist() == [[0.5, 0.5, 2.5]]
    wrong = np.array([[8, 6, 4, 2]])
    quarters = sort_errors.by_quarter(np.array([[0.0, 1.0, 2.0, 3.0]]), wrong)
    assert [quarter["wrong_bits"] for quarter in quarters] == [8, 6, 4, 2]


def test_a_stage_is_drawn_from_where_the_one_before_ended():
    from matplotlib.figure import Figure

    def account(model, length, accuracy, **before):
        settings = {"task": "double-copy", "model": model, "length": length, "steps": 250}
        return {"settings": settings, "history": {"accuracy": accuracy}, **before}

    axis = Figure().subplots()
    first = account("mnm-p", 10, [0.0, 0.25, 0.5])
    last = account("mnm-g", 50, [0.5, 0.75, 1.0], started_from=first)
    legend = preset_stages.draw_stages(axis, last, {})
    curves = [line for line in axis.lines if len(line.get_xdata()) == 3]
    assert list(legend) == ["10 symbols", "50 symbols"]
    for line, curve in zip(legend.values(), curves, strict=True):
        assert line.get_color() == curve.get_color()
    np.testing.assert_allclose(curves[0].get_xdata(), [0.1, 0.2, 0.25])
    np.testing.assert_allclose(curves[1].get_xdata(), [0.35, 0.45, 0.5])
    assert curves[1].get_linewidth() > curves[0].get_linewidth()
    assert [line.get_linestyle() for line in curves] == [":", "-"]


def test_pictures_of_the_presets(tmp_path, monkeypatch):
    monkeypatch.setattr(preset_stages, "DOCS", tmp_path)
    preset_stages.main([])
    for name in ("stages.png", "babi_stages.png", "priority_sort.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    lines = {line.get_label(): line for line in preset_stages.draw_sort().axes[0].lines}
    lines = {label: line for label, line in lines.items() if not label.startswith("_")}
    assert set(lines) == {"MNM-p (local writes)", "MNM-g (gradient writes)", "LSTM+SALU"}
    assert lines["LSTM+SALU"].get_xdata()[0] == 0.1  # thousands


def test_stages_of_babi(monkeypatch):
    def account(tasks, accuracies, **more):
        settings = {
            "steps": 20,
            "steps_per_epoch": 10,
            "batch_size": 32,
            **more.pop("settings", {}),
        }
        settings["tasks"] = list(range(1, tasks + 1))
        return {"settings": settings, "history": {"sequence_accuracy": accuracies}, **more}

    first = account(1, [0.5, 1.0], figures={"mean_error": 0.0})
    second = account(20, [0.5, 0.75], started_from=first, figures={"mean_error": 30.0})
    exchanged = {"exchange_words": True, "repeat": [[3, 4], [16, 2]]}
    last = account(
        20, [0.8, 0.9], started_from=second, evaluation={"mean_error": 12.0}, settings=exchanged
    )
    monkeypatch.setattr(preset_stages, "account_of_preset", {"babi-mnm-p": last}.get)
    axis = preset_stages.draw_babi().axes[0]
    lines = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    one, all_tasks, often, validated = lines.values()
    assert list(lines)[:2] == ["1. 1 task, batches of 32", "2. 20 tasks, batches of 32"]
    assert often.get_label().split(",\n")[1] == "3, 16 more often"
    assert "words exchanged" in often.get_label()
    np.testing.assert_allclose(one.get_ydata(), [0.5, 1e-3])  # as low as is drawn
    np.testing.assert_allclose(all_tasks.get_xdata(), [0.03, 0.04])
    np.testing.assert_allclose(validated.get_xdata(), [0.04, 0.06])
    np.testing.assert_allclose(validated.get_ydata(), [0.3, 0.12])


def test_stories_told_of_others_are_the_same():
    from keras_mnm.tasks import babi

    rows, answers = babi.parse(
        "1 Mary went to the kitchen.\n2 Sandra went to the garden.\n3 Where is Mary?\tkitchen\t1\n"
        "1 Sandra went to the kitchen.\n2 Sandra went to the garden.\n"
        "3 Where is Sandra?\tgarden\t2\n",
        "stories",
    )
    answers = np.array([[babi.NOT_ASKED, babi.NOT_ASKED, word] for (word,) in answers])
    starts = np.cumsum([0, *map(len, rows)])
    training = babi.Questions(np.concatenate(rows), starts, answers, np.array([1, 1]))
    exchange, rng = babi.WordExchange(training), np.random.default_rng(0)
    for _ in range(10):
        told = [
            exchange(rng, [1], np.array([row]), answer[None]) for row, answer in zip(rows, answers)
        ]
        validation = babi.Questions(
            np.concatenate([tokens[0] for tokens, _ in told]),
            starts,
            np.concatenate([targets for _, targets in told]),
            np.array([1, 1]),
        )
        assert babi_stories.told_before(training, validation, exchange.kinds).all()
        as_they_are = babi_stories.told_before(training, validation, {1: ()})
        same = [np.array_equal(tokens[0], row) for (tokens, _), row in zip(told, rows)]
        assert as_they_are.tolist() == same
    # With the answers of each other they are stories that were never told.
    other = training._replace(answers=answers[::-1])
    assert not babi_stories.told_before(training, other, exchange.kinds).any()


def test_what_is_wrong_of_the_stories_not_told_before(tmp_path, monkeypatch):
    def story(person, place):
        return f"1 {person} went to the {place}.\n2 Where is {person}?\t{place}\t1\n"

    deduction = "1 Mice are afraid of {0}.\n2 What are mice afraid of?\t{1}\t1\n".format
    training = {4: story("Mary", "office") + story("John", "garden"), 15: deduction("cats", "cat")}
    validation = {
        4: story("John", "office"),
        15: deduction("cats", "cat") + 3 * deduction("sheep", "sheep"),
    }
    for split, texts in (("train", training), ("valid", validation)):
        for task, text in texts.items():
            (tmp_path / f"qa{task}_{split}.txt").write_text(text)
    monkeypatch.setenv("BABI_DATA", str(tmp_path))
    monkeypatch.setattr(keras_mnm, "from_preset", lambda name: None)
    wrong = np.array([True, True, False, True, False])  # of task 4, then of 15
    monkeypatch.setattr(babi_stories.example, "wrong_answers", lambda model, data: wrong)
    results = babi_stories.measure(quick=True)
    assert results["told"]["as they are"] == {4: 0.0, 15: 0.25}
    assert results["told"]["up to an exchange"] == {4: 1.0, 15: 0.25}
    assert results["wrong_of_the_others"] == {15: pytest.approx(1 / 3)}
    assert "| 4: two argument relations | 0.0% | 100.0% | none |" in babi_stories.table(results)
