"""The pages: their Python runs, their links lead somewhere, their figures are those measured."""

import importlib
import importlib.util
import itertools
import json
import pathlib
import re
import shlex
import statistics
import subprocess
import sys

import command_line
import keras
import pytest

import keras_mnm

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
HAS_SNIPPETS_FOR_OTHER_TESTS = {"distributed.md"}


@by_page
def test_links(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    for target in targets:
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


NAMES_OF_FIGURES = {
    "sequences right": "sequence_accuracy",
    "symbols right": "symbol_accuracy",
    "wrong bits of 128": "wrong_bits_per_sequence",
    "mean error %": "mean_error",
    "reward an episode": "mean_reward",
}


def test_results_are_those_of_their_files():
    results = (ROOT / "README.md").read_text().split("## Results")[1].split("\n## ")[0]
    count = 0
    for line in results.splitlines():
        found = re.findall(r"\[([\d.]+)\]\(([^)]+\.json)\)", line)
        names = NAMES_OF_FIGURES.values()  # notes have figures of several kinds
        if found and line.startswith("|"):
            names = [NAMES_OF_FIGURES[line.split("|")[2].strip()]]
        for figure, path in found:
            account = json.loads((ROOT / path).read_text())
            measured = next(
                account[key] for key in ("evaluation", "figures", "results") if key in account
            )
            decimals = len(figure.partition(".")[2])
            known = itertools.chain(*(numbers(measured, name) for name in names))
            assert figure in {f"{number:.{decimals}f}" for number in known}, f"{path}: {figure}"
            count += 1
    assert count > 15


def numbers(figures, name=None):
    """All numbers in a nested dict, of that name."""
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from numbers(value, name)
        elif key == name or (name is None and isinstance(value, float)):
            yield value


def test_figures_are_those_of_the_files_beside_them():
    """As in `0.997 ([json](path))`: of an evaluation, or of the end of a run."""
    count = 0
    for page in PAGES:
        found = re.findall(r"([\d]+\.\d+)\s+\(\[json\]\(([^)]+\.json)\)", page.read_text())
        for figure, path in found:
            account = json.loads((page.parent / path).read_text())
            measured = [account.get(key, {}) for key in ("evaluation", "figures", "results")]
            ends = {name: values[-1] for name, values in account.get("history", {}).items()}
            decimals = len(figure.partition(".")[2])
            known = itertools.chain(*map(numbers, [*measured, ends]))
            assert figure in {f"{number:.{decimals}f}" for number in known}, f"{path}: {figure}"
        count += len(found)
    assert count > 20


def account_of(path):
    return json.loads((ROOT / "benchmarks/results" / path).read_text())


def rows_of(page, heading):
    """The cells of the table's rows below a heading."""
    text = "\n" + (ROOT / "docs" / page).read_text()
    section = text.split(f"\n{heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)[2:]
    return [[cell.strip() for cell in row.split("|")] for row in rows]


MEASURED = {
    "symbols": "symbol_accuracy",
    "sequences": "sequence_accuracy",
    "wrong bits": "wrong_bits_per_sequence",
}


def test_evaluations_of_presets_are_those_of_their_files():
    rows = rows_of("algorithmic_tasks.md", "## Presets")
    assert len(rows) > 10
    for name, figures, *_ in rows:
        evaluation = account_of(f"{name.strip('`')}.json")["evaluation"]
        said = dict(re.findall(r"(symbols|sequences) (\d\.\d+)", figures))
        said |= {unit: n for n, unit in re.findall(r"(\d+\.\d+) (wrong bits) of", figures)}
        assert said
        for unit, figure in said.items():
            decimals = len(figure.partition(".")[2])
            assert figure == f"{evaluation[MEASURED[unit]]:.{decimals}f}", name


STARTED = {
    "dictionary (4, 1)": "dictionary-4x1",
    "dictionary (8, 4)": "dictionary-8x4",
    "dictionary (12, 8)": "dictionary-12x8",
    "dictionary (16, 12)": "dictionary-16x12",
    "double copy": "double-copy",
    "priority sort": "priority-sort",
}


def test_runs_from_scratch_are_those_of_their_files():
    rows = rows_of("algorithmic_tasks.md", "## From scratch")
    assert len(rows) == len(STARTED)
    for label, updates, *cells in rows:
        task, metric = label.rsplit(", ", 1)
        key, decimals = ("wrong_bits", 1) if "wrong bits" in metric else ("accuracy", 3)
        for model, cell in zip(("mnm-p", "mnm-g", "lstm-salu", "lstm"), cells, strict=True):
            folder = ROOT / "benchmarks/results/learning_curves"
            runs = [
                json.loads(p.read_text()) for p in folder.glob(f"{STARTED[task]}-{model}-seed*")
            ]
            assert {run["settings"]["steps"] for run in runs} == {int(updates.replace(",", ""))}
            ends = [run["history"][key][-1] for run in runs]
            said = f"{statistics.fmean(ends):.{decimals}f}"
            if len(runs) > 1:
                said += f" ± {statistics.stdev(ends):.{decimals}f}"
            said += f" ({len(runs)})" * (len(runs) not in (1, 3))
            assert cell == said, (label, model)


def test_errors_by_task_are_those_of_their_files():
    figures = [account_of(f"babi-{model}.json")["figures"] for model in ("mnm-p", "mnm-g")]
    *tasks, mean, failed = rows_of("babi.md", "# bAbI")
    assert len(tasks) == 20
    for label, *cells in tasks:
        errors = [f["error_per_task"][label.split(":")[0]] for f in figures]
        assert cells[:2] == [f"{error:.1f}" for error in errors], label
    assert mean[1:3] == [f"{f['mean_error']:.2f}" for f in figures]
    assert failed[1:3] == [str(f["failed_tasks"]) for f in figures]


def test_rewards_are_those_of_their_files():
    count = 0
    for *_, cell in rows_of("maze.md", "## Results"):
        ((mean, spread, path),) = re.findall(r"\[([\d.]+) ± (\d+)\]\((\S+)\)", cell)
        account = json.loads((ROOT / "docs" / path).read_text())
        measured = account.get("figures") or account["results"]
        decimals = len(mean.partition(".")[2])
        assert mean in {f"{x:.{decimals}f}" for x in numbers(measured, "mean_reward")}, path
        assert spread in {f"{x:.0f}" for x in numbers(measured, "std_reward")}, path
        count += 1
    assert count > 5


TIMED = {
    "`MNM`, local writes (fused)": "MNM-p fused",
    "`RNN(MNMCell)`, local writes (plain loop)": "MNM-p plain",
    "PyTorch loop, not compiled, local writes": "MNM-p PyTorch loop",
    "`MNM`, gradient writes (fused)": "MNM-g fused",
    "`RNN(MNMCell)`, gradient writes (plain loop)": "MNM-g plain",
    "`SALU` (LSTM+SALU)": "LSTM+SALU",
    "`titans-pytorch`'s neural memory, for scale": "titans-pytorch",
    "`dnc`, for scale": "dnc",
    "`keras.layers.LSTM`, for scale": "Keras LSTM",
}


def test_times_are_those_of_their_file():
    path = ROOT / "benchmarks/results/train_step-tensorflow.json"
    results = json.loads(path.read_text())["results"]
    readme = (ROOT / "README.md").read_text()
    for label, name in TIMED.items():
        (cells,) = re.findall(rf"^\| {re.escape(label)} \|(.*)\|$", readme, re.MULTILINE)
        seconds = [results[steps]["seconds"].get(name) for steps in ("T=20", "T=100", "T=441")]
        expected = ["" if s is None else f"{1000.0 * s:.0f}" for s in seconds]
        assert [cell.strip() for cell in cells.split("|")] == expected, label


def test_ratios_are_those_of_their_files():
    readme = " ".join((ROOT / "README.md").read_text().split())
    seconds = [r["seconds"] for r in account_of("train_step-tensorflow.json")["results"].values()]
    for rule in ("MNM-p", "MNM-g"):
        ratios = [f"{s[f'{rule} plain'] / s[f'{rule} fused']:.1f}" for s in seconds]
        assert "{}, {} and {} times".format(*ratios) in readme
    memory = account_of("training_memory-tensorflow.json")["results"]["by_implementation"]
    for rule, words in (
        ("MNM-p", "{:.2f} GB with local writes, where the plain loop adds {:.1f} GB, {:.0f} times"),
        ("MNM-g", "with gradient writes {:.2f} GB against {:.1f}, {:.0f} times"),
    ):
        less, more = (memory[f"{rule} {form}"]["training_mb"] / 1000 for form in ("fused", "plain"))
        assert words.format(less, more, more / less) in readme


class UnderstoodError(Exception):
    """What a command line raises here in place of being carried out."""


@by_page
def test_commands_are_understood(page, monkeypatch):
    parse = command_line.Parser.parse_args

    def parse_and_stop(parser, words):
        parse(parser, words)
        raise UnderstoodError

    monkeypatch.setattr(command_line.Parser, "parse_args", parse_and_stop)
    text = page.read_text().replace("\\\n", " ")
    functions = re.findall(r'^(\w+)\(\) \{ (.*) "\$@"; \}', text, re.MULTILINE)
    for name, body in reversed(functions):
        text = re.sub(rf"^{name} (?=--)", f"{body} ", text, flags=re.MULTILINE)
    for name, words in re.findall(r"python examples/(\w+)\.py([^\n#|`]*)", text):
        if '"$@"' not in words:
            with pytest.raises(UnderstoodError):
                importlib.import_module(name).main(shlex.split(words))


@by_page
def test_python_runs(page, tmp_path, monkeypatch):
    if page.name in HAS_SNIPPETS_FOR_OTHER_TESTS:
        pytest.skip("test_distribution.py runs these")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the pages are for TensorFlow first")
    if page.stem == "tf_agents" and importlib.util.find_spec("tf_agents") is None:
        pytest.skip("TF-Agents is not installed; it is the extra 'rl'")
    snippets = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    if not snippets:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        exec(compile(snippet, page.name, "exec"), {})


def test_the_site_is_built_without_a_broken_link(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the site is built once")
    for package in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it is in the dependency group 'docs'")
    command = [sys.executable, "-m", "sphinx", "-q", "--fail-on-warning", "-c", "docs", "."]
    done = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    pages = {page: page.read_text() for page in tmp_path.rglob("*.html")}
    for page, text in pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)', text):
            if not target.startswith(("http://", "https://", "data:")):
                path, _, anchor = target.split("?")[0].partition("#")
                path = (page.parent / path).resolve() if path else page
                assert path.exists(), f"{page.name} leads to {target}"
                if anchor and path.suffix == ".html":
                    assert f'id="{anchor}"' in pages[path], f"{page.name} leads to {target}"
    reference = pages[tmp_path / "docs" / "api.html"]
    for name in keras_mnm.__all__:
        if callable(getattr(keras_mnm, name)):
            assert f'id="keras_mnm.{name}"' in reference
    assert "memory_depth" in reference[reference.index('id="keras_mnm.MNM"') :][:3000]
