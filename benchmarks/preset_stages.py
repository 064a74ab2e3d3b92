"""How presets were learned: in stages from one instance or some tasks to more, and priority sort's.

python benchmarks/preset_stages.py

draws the accounts of the presets in `benchmarks/results/` to `docs/stages.png`,
`docs/babi_stages.png` and `docs/priority_sort.png`. Where a chain began with a preset since
replaced, its picture begins there, too.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent / "docs"
sys.path.insert(0, str(HERE.parent / "examples"))

import experiment  # noqa: E402
from command_line import LABELS, Parser  # noqa: E402

RULES = ("mnm-p", "mnm-g")
FLOOR = 1e-5
"""The error that is drawn where none was made in a hundred updates."""
INSTANCES = {
    "dictionary-8x4": "dictionary (8, 4)",
    "dictionary-12x8": "dictionary (12, 8)",
    "dictionary-16x12": "dictionary (16, 12)",
    "double-copy": "double copy, 50 symbols",
}


def main(arguments=None):
    Parser(description=__doc__).parse_args(arguments)

    from keras_mnm.files import save_figure

    pictures = {
        "stages.png": draw_instances,
        "babi_stages.png": draw_babi,
        "priority_sort.png": draw_sort,
    }
    for name, draw in pictures.items():
        save_figure(draw(), DOCS / name, dpi=110)
        print(f"Drawn to {DOCS / name}")


def account_of_preset(preset):
    return json.loads((HERE / "results" / f"{preset}.json").read_text())


def draw_instances():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7.4), layout="constrained")
    figure.suptitle(
        "Wrong symbols of fresh episodes in training, from instance to instance "
        "(thick: the preset's own; dotted: of MNM-p)"
    )
    colors, lines = {}, {}
    for row, rule in zip(figure.subplots(len(RULES), len(INSTANCES), sharey=True), RULES):
        row[0].set_ylabel(f"{LABELS[rule]}\nsymbol error")
        for axis, (instance, title) in zip(row, INSTANCES.items()):
            lines |= draw_stages(axis, account_of_preset(f"{instance}-{rule}"), colors)
            axis.set(title=title, xlabel="thousands of updates", xlim=(0, None))
            axis.set(yscale="log", ylim=(FLOOR / 1.3, 1.3))
            axis.grid(alpha=0.3)
    lines = dict(sorted(lines.items(), key=lambda item: _sizes(item[0])))
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines))
    return figure


def _sizes(name):
    """What instances are sorted by: their task, length and number of examples."""
    return "symbols" in name, [int(number) for number in re.findall(r"\d+", name)][::-1]


def draw_stages(axis, account, colors):
    """Each stage goes on where the one before ended.

    A color is a length of sequence, pale with few examples. Stages of the preset's own instance are
    thick, those of another model dotted. Returns lines for a legend, by the instances' names.
    """
    from matplotlib.lines import Line2D

    own, lines = account["settings"], {}
    for stage, start, ends in placed(account):
        settings = stage["settings"]
        errors = [max(FLOOR, 1 - accuracy) for accuracy in stage["history"]["accuracy"]]
        name = label(settings)
        color = colors.setdefault(settings["length"], len(colors))
        pale = settings.get("support_size") == 4
        shade = {"color": f"C{color}", "alpha": 0.5 if pale else 1.0}
        width = 2.5 if name == label(own) else 1.2
        dashes = "-" if settings["model"] == own["model"] else ":"
        axis.plot(ends, errors, **shade, lw=width, ls=dashes)
        lines[name] = Line2D([], [], **shade)
        axis.axvline(start, color="gray", lw=0.4)
    return lines


def placed(account):
    """Each stage, where it starts and its epochs end, in thousands of updates from the first."""
    start = 0.0
    for stage in reversed(list(experiment.stages(account))):
        epochs = len(next(iter(stage["history"].values())))
        updates = experiment.updates_by_epoch(stage["settings"], epochs)
        ends = [start + n / 1000 for n in updates]
        yield stage, start, ends
        start = ends[-1]


def label(settings):
    """What tells the instances of a task apart."""
    if "support_size" in settings:
        return "({support_size}, {length})".format(**settings)
    return f"{settings['length']} symbols"


def draw_babi():
    """The stages of bAbI's preset, a line each, and what they had wrong of the validation files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axis = figure.subplots()
    measured, floor = {}, 1e-3
    for number, (stage, start, ends) in enumerate(placed(account_of_preset("babi-mnm-p")), 1):
        settings = stage["settings"]
        name = f"{number}. {len(settings['tasks'])} tasks, batches of {settings['batch_size']}"
        if settings.get("exchange_words"):
            name += ", words exchanged"
        if settings.get("repeat"):
            often = ", ".join(str(task) for task, _ in sorted(settings["repeat"]))
            name += f",\n{often} more often"
        errors = [max(floor, 1 - accuracy) for accuracy in stage["history"]["sequence_accuracy"]]
        axis.plot(ends, errors, label=name.replace(" 1 tasks", " 1 task"))
        axis.axvline(start, color="gray", lw=0.4)
        figures = stage.get("evaluation") or stage.get("figures")
        if figures and len(settings["tasks"]) == 20:
            measured[ends[-1]] = figures["mean_error"] / 100
    found = measured.keys(), measured.values()
    axis.plot(*found, "kD", ms=5, label="mean of the 20 tasks, validation files")
    axis.set(xlabel="thousands of updates", xlim=(0, None))
    axis.set(ylabel="share of questions wrong, in training", yscale="log", ylim=(floor / 1.3, 1))
    axis.set(title="bAbI, MNM-p: from few tasks to all")
    axis.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside right center")
    return figure


def draw_sort():
    """The stages of priority sort's presets, those of another instance dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axis = figure.subplots()
    for number, model in enumerate((*RULES, "lstm-salu")):
        account = account_of_preset(f"priority-sort-{model}")
        own = [part for part in placed(account) if part[0]["settings"]["model"] == model]
        for stage, _, ends in own:
            sorted_vectors = stage["settings"]["sorted_vectors"]
            share = [100 * wrong / (8 * sorted_vectors) for wrong in stage["history"]["wrong_bits"]]
            whole = sorted_vectors == account["settings"]["sorted_vectors"]
            label = LABELS[model] if stage is own[0][0] else None
            axis.plot(ends, share, f"C{number}", ls="-" if whole else "--", label=label)
    axis.set(xlabel="thousands of updates", xlim=(0, None), ylabel="wrong bits, %")
    axis.set(yscale="log", yticks=(50, 20, 10, 5, 2), yticklabels=(50, 20, 10, 5, 2))
    axis.set_title("Priority sort of 20 vectors, priorities as thresholds (dashed: of 30)")
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


if __name__ == "__main__":
    main()
