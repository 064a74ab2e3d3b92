"""How the presets that were trained in stages were learned, from one instance to the next.

python benchmarks/preset_stages.py

draws the accounts of the presets in `benchmarks/results/` to `docs/stages.png`. Where a chain began
with a preset since replaced, its picture begins there, too.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
PICTURE = HERE.parent / "docs" / "stages.png"
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


def draw():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from keras_mnm.files import replacing

    figure = pyplot.figure(figsize=(17, 6.8), layout="constrained")
    figure.suptitle("Wrong symbols of fresh episodes in training, from instance to instance")
    colors = {}
    for row, rule in zip(figure.subplots(len(RULES), len(INSTANCES), sharey=True), RULES):
        row[0].set_ylabel(f"{MODELS[rule]}\nsymbol error")
        for axis, (instance, title) in zip(row, INSTANCES.items()):
            account = HERE / "results" / f"{instance}-{rule}.json"
            draw_stages(axis, json.loads(account.read_text()), colors)
            axis.set(title=title, xlabel="thousands of updates", xlim=(0, None))
            axis.set(yscale="log", ylim=(FLOOR / 1.3, 1.3))
            axis.grid(alpha=0.3)
    with replacing(PICTURE) as temporary:
        figure.savefig(temporary, dpi=110)
    print(f"Drawn to {PICTURE}")


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


if __name__ == "__main__":
    draw()
