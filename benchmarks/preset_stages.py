"""How presets were learned: those in stages from one instance to the next, and priority sort's.

python benchmarks/preset_stages.py

draws the accounts of the presets in `benchmarks/results/` to `docs/stages.png` and
`docs/priority_sort.png`. Where a chain began with a preset since replaced, its picture begins
there, too.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent / "docs"
sys.path.insert(0, str(HERE.parent / "examples"))

import experiment  # noqa: E402
from command_line import MODELS  # noqa: E402

RULES = ("mnm-p", "mnm-g")
FLOOR = 1e-5
"""The error that is drawn where none was made in a hundred updates."""
INSTANCES = {
    "dictionary-8x4": "dictionary (8, 4)",
    "dictionary-12x8": "dictionary (12, 8)",
    "dictionary-16x12": "dictionary (16, 12)",
    "double-copy": "double copy, 50 symbols",
}


def main():
    from keras_mnm.files import replacing

    for name, draw in (("stages.png", draw_instances), ("priority_sort.png", draw_sort)):
        with replacing(DOCS / name) as path:
            draw().savefig(path, dpi=110)
        print(f"Drawn to {DOCS / name}")


def account_of(preset):
    return json.loads((HERE / "results" / f"{preset}.json").read_text())


def draw_instances():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 6.8), layout="constrained")
    figure.suptitle("Wrong symbols of fresh episodes in training, from instance to instance")
    colors = {}
    for row, rule in zip(figure.subplots(len(RULES), len(INSTANCES), sharey=True), RULES):
        row[0].set_ylabel(f"{MODELS[rule]}\nsymbol error")
        for axis, (instance, title) in zip(row, INSTANCES.items()):
            draw_stages(axis, account_of(f"{instance}-{rule}"), colors)
            axis.set(title=title, xlabel="thousands of updates", xlim=(0, None))
            axis.set(yscale="log", ylim=(FLOOR / 1.3, 1.3))
            axis.grid(alpha=0.3)
    return figure


def draw_stages(axis, account, colors):
    """Each stage goes on where the one before ended.

    A color is a length of sequence, pale with few examples. Stages of the preset's own instance are
    thick, those of another model dotted.
    """
    own, shown, ended = account["settings"], set(), 0.0
    for stage in reversed(list(experiment.stages(account))):
        settings = stage["settings"]
        errors = [max(FLOOR, 1 - accuracy) for accuracy in stage["history"]["accuracy"]]
        name, same_model = label(settings), settings["model"] == own["model"]
        color = colors.setdefault(settings["length"], len(colors))
        pale = settings.get("support_size") == 4
        style = {
            "color": f"C{color}",
            "alpha": 0.5 if pale else 1.0,
            "lw": 2.5 if name == label(own) else 1.2,
            "ls": "-" if same_model else ":",
        }
        if not same_model:
            name += f", {settings['model']}"
        updates = experiment.updates_by_epoch(settings, len(errors))
        ends = [ended + n / 1000 for n in updates]
        axis.plot(ends, errors, **style, label=None if name in shown else name)
        axis.axvline(ended, color="gray", lw=0.4)
        shown.add(name)
        ended = ends[-1]
    axis.legend(fontsize="x-small", loc="best")


def label(settings):
    """What tells the instances of a task apart."""
    if "support_size" in settings:
        return "({support_size}, {length})".format(**settings)
    return f"{settings['length']} symbols"


def draw_sort():
    """The presets of priority sort, a line each; one that goes on from another begins there."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for model in (*RULES, "lstm-salu"):
        account, ended = account_of(f"priority-sort-{model}"), 0.0
        for stage in reversed(list(experiment.stages(account))):
            bits = stage["history"]["wrong_bits"]
            ends = [
                ended + n / 1000 for n in experiment.updates_by_epoch(stage["settings"], len(bits))
            ]
            ended = ends[-1]
        axis.plot(ends, bits, label=MODELS[model])
    axis.set(xlabel="thousands of updates", xlim=(0, None), ylabel="wrong bits of 128")
    axis.set(yscale="log", yticks=(64, 32, 16, 8, 4), yticklabels=(64, 32, 16, 8, 4))
    axis.set_title("Priority sort, priorities as thresholds, three heads")
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


if __name__ == "__main__":
    main()
