"""The paper's learning curves (Figs. 2, 4 and 6) from training runs of the examples.

python benchmarks/learning_curves.py record runs/dictionary-4x1-mnm-p-seed0 ...
python benchmarks/learning_curves.py draw

`record` writes how a run, finished and from scratch, was trained and fared to
`benchmarks/results/learning_curves/`; `draw` makes the pictures in `docs/` and prints a table. Runs
may share their machine with other work, so that the pictures take the time of an update from
`benchmarks/results/task_step-tensorflow.json`, where all models were timed in turn; the maze is
drawn against episodes alone, as in the paper.
"""

import json
import pathlib
import sys
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "learning_curves", HERE.parent / "docs"
sys.path.insert(0, str(HERE.parent / "examples"))

import experiment  # noqa: E402
import numpy as np  # noqa: E402
from command_line import LABELS, Parser, steps_per_epoch  # noqa: E402
from markdown_table import markdown_table  # noqa: E402


class Metric(NamedTuple):
    """What a panel shows."""

    label: str
    limits: tuple
    goal: float
    """What the table counts the updates to."""
    more_is_better: bool = True
    counted: str = "updates"
    """What it is drawn against."""
    smoothing: float = 0.0
    """The part of the run that a drawn value is the mean of."""

    def reaches_goal(self, values):
        return values >= self.goal if self.more_is_better else values <= self.goal


METRICS = {
    "accuracy": Metric("symbol accuracy", (-0.02, 1.02), 0.99),
    "wrong_bits": Metric("wrong bits a sequence, of 128", (0, None), 1.0, more_is_better=False),
    "reward": Metric("reward an episode", (None, None), 175.0, counted="episodes", smoothing=0.02),
}

FIGURES = {
    "dictionary": (
        "Dictionary inference (Fig. 2): k examples of l letters",
        {
            "dictionary-4x1": ("k = 4, l = 1", "accuracy"),
            "dictionary-8x4": ("k = 8, l = 4", "accuracy"),
            "dictionary-12x8": ("k = 12, l = 8", "accuracy"),
            "dictionary-16x12": ("k = 16, l = 12", "accuracy"),
        },
    ),
    "programming_tasks": (
        "Double copy and priority sort (Fig. 4)",
        {
            "double-copy": ("double copy, 50 symbols", "accuracy"),
            "priority-sort": ("priority sort, 20 vectors of 8 bits", "wrong_bits"),
        },
    ),
    "maze": ("The maze (Fig. 6)", {"maze": ("11 × 11 cells, 250 steps", "reward")}),
}
"""A picture's title, and of each panel its title and what it shows."""


def record(runs):
    """Stores the runs' accounts. A ValueError, before anything is written, where one cannot be."""
    from keras_mnm.files import write_json

    accounts = {}
    for run in runs:
        if not (run / "metrics.json").exists():
            raise ValueError(f"{run} holds no finished run")
        account = experiment.account_of(run)
        settings = account["settings"]
        if settings.get("start_from"):
            raise ValueError(f"{run} began with the weights of another run")
        instance = experiment.task_of(settings).instance_name(settings)
        drawn = [name for _, panels in FIGURES.values() for name in panels]
        if instance not in drawn:
            raise ValueError(f"{run} is of {instance}; the figures show {', '.join(drawn)}")
        accounts.setdefault(name_of(settings), []).append(account)
    for name, new in accounts.items():
        check_alike(name, [*stored(name), *new])
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, new in accounts.items():
        for account in new:
            path = RESULTS / f"{name}-seed{account['settings']['seed']}.json"
            write_json(path, account, indent=None)
            print(f"Written to {path}")


def name_of(settings):
    """The instance and the model, as in the names of presets."""
    return f"{experiment.task_of(settings).instance_name(settings)}-{settings['model']}"


def stored(name):
    """The accounts of the stored runs of an instance and a model, by seed."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{name}-seed*"))]


def check_alike(name, runs):
    """A ValueError where runs of one name differ in more than their seeds."""
    settings = [run["settings"] for run in runs]
    settings = [{**each, "steps_per_epoch": steps_per_epoch(each)} for each in settings]
    for setting in sorted(set().union(*settings) - {"seed", "threads"}):
        found = [(each["seed"], each.get(setting)) for each in settings]
        if any(value != found[0][1] for _, value in found):
            raise ValueError(
                f"the runs of {name} differ in more than their seeds: {setting} by seed is {found};"
                f" record runs of the same settings, or remove those in {RESULTS}"
            )


def curves(instance, model, metric):
    """Updates and values `[seeds, epochs]` of the stored runs, or None where there are none.

    Where the metric is counted by episodes, these take the place of updates; where it is noisy,
    values are running means. A run that stopped when solved keeps its last value to the end of the
    longest one.
    """
    from keras_mnm.visualize import running_mean

    runs = stored(f"{instance}-{model}")
    if not runs:
        return None
    check_alike(f"{instance}-{model}", runs)
    epochs = max(len(run["seconds"]) for run in runs)
    width = max(1, round(METRICS[metric].smoothing * epochs))
    values = [running_mean(extended(run["history"][metric], epochs), width) for run in runs]
    longest = max(runs, key=lambda run: len(run["seconds"]))
    updates = np.array(experiment.updates_by_epoch(longest["settings"], epochs))[width - 1 :]
    if METRICS[metric].counted == "episodes":
        updates *= longest["settings"]["parallel"]
    return updates, np.stack(values)


def extended(values, length):
    return np.array(values + values[-1:] * (length - len(values)))


def draw():
    from matplotlib.figure import Figure

    from keras_mnm.files import save_figure

    timings = json.loads((HERE / "results" / "task_step-tensorflow.json").read_text())["results"]
    colors = {model: f"C{number}" for number, model in enumerate(LABELS)}
    for name, (title, panels) in FIGURES.items():
        panels = {
            instance: panel
            for instance, panel in panels.items()
            if any(curves(instance, model, panel[1]) for model in LABELS)
        }
        if not panels:
            continue
        rows = 2 if panels.keys() <= timings.keys() else 1
        size = max(7.0, 1 + 4.2 * len(panels)), 3.1 * rows + (rows < 2)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title)
        axes, lines = figure.subplots(rows, len(panels), squeeze=False), {}
        for column, (instance, (subtitle, metric)) in zip(axes.T, panels.items()):
            counts = set()
            for model, label in LABELS.items():
                found = curves(instance, model, metric)
                if not found:
                    continue
                updates, values = found
                xs = [updates]
                if rows > 1:
                    xs.append(updates * timings[instance]["seconds"][model] / 60)
                counts.add(len(values))
                for axis, x in zip(column, xs):
                    (lines[label],) = axis.plot(x, values.mean(axis=0), color=colors[model])
                    # A seed learns or does not: a band around the mean would show neither.
                    axis.plot(x, values.T, color=colors[model], alpha=0.5, lw=0.8)
            shown = METRICS[metric]
            for axis, label in zip(column, (shown.counted, "minutes on two idle cores")):
                axis.set_xlabel(label)
                axis.set_ylabel(shown.label)
                axis.grid(alpha=0.3)
                axis.set_xlim(left=0)
                axis.set_ylim(*shown.limits)
            seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
            column[0].set_title(f"{subtitle} ({seeds} seed{'s' * (max(counts) > 1)})")
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=4, fontsize="small")
        DOCS.mkdir(exist_ok=True)
        save_figure(figure, DOCS / f"{name}.png", dpi=110)
        print(f"Drawn to {DOCS / name}.png")
    print(table())


def table():
    """The last epoch of each, mean ± std over seeds, and when it was good."""
    goals = ", ".join(f"{metric.goal:g} {metric.label}" for metric in METRICS.values())
    columns = ["task", "model", "seeds", "last epoch", "updates (maze: episodes)", f"to {goals}"]
    rows = []
    for _, panels in FIGURES.values():
        for instance, (_, metric) in panels.items():
            for model, label in LABELS.items():
                found = curves(instance, model, metric)
                if not found:
                    continue
                updates, values = found
                good = METRICS[metric].reaches_goal(values)
                first = [int(updates[row.argmax()]) if row.any() else "-" for row in good]
                last = mean_and_spread(values[:, -1])
                count, until = len(values), f"{updates[-1]:.0f}"
                rows.append([instance, label, count, last, until, ", ".join(map(str, first))])
    return markdown_table(columns, rows, text_columns=2)


def mean_and_spread(values):
    """As text: mean ± standard deviation of the sample, which a single value has not."""
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def main():
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("runs", nargs="+", type=pathlib.Path)
    commands.add_parser("draw", help="overwrites the pictures in docs/")
    args = parser.parse_args()
    with parser.answering():
        record(args.runs) if args.command == "record" else draw()


if __name__ == "__main__":
    main()
