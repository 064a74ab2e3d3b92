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
INSTANCES = {
    "dictionary-8x4": "dictionary (8, 4)",
    "dictionary-12x8": "dictionary (12, 8)",
    "dictionary-16x12": "dictionary (16, 12)",
    "double-copy": "double copy, 50 symbols",
}
METRIC = "accuracy"


def draw():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from keras_mnm.files import replacing

    figure = pyplot.figure(figsize=(17, 6.8), layout="constrained")
    figure.suptitle("Symbol accuracy of fresh episodes in training, from instance to instance")
    colors = {}
    for row, rule in zip(figure.subplots(len(RULES), len(INSTANCES), sharey=True), RULES):
        row[0].set_ylabel(f"{MODELS[rule]}\nsymbol accuracy")
        for axis, (instance, title) in zip(row, INSTANCES.items()):
            account = HERE / "results" / f"{instance}-{rule}.json"
            axis.set_title(title)
            if account.exists():
                draw_stages(axis, json.loads(account.read_text()), colors)
            else:
                axis.text(0.5, 0.5, "not learned yet", transform=axis.transAxes, ha="center")
            axis.set(xlabel="thousands of updates", xlim=(0, None), ylim=(-0.02, 1.02))
            axis.grid(alpha=0.3)
    with replacing(PICTURE) as temporary:
        figure.savefig(temporary, dpi=110)
    print(f"Drawn to {PICTURE}")


def draw_stages(axis, account, colors):
    """Each stage goes on where the one before ended, in the color of its length of sequence.

    Those of the preset's own instance are thick, those of another model dashed.
    """
    own = account["settings"]
    shown, ended = set(), 0.0
    for stage in reversed(list(experiment.stages(account))):
        settings, values = stage["settings"], stage["history"][METRIC]
        name, same_model = label(settings), settings["model"] == own["model"]
        name += "" if same_model else f", {settings['model']}"
        style = {
            "color": colors.setdefault(settings["length"], f"C{len(colors)}"),
            "lw": 2.5 if name == label(own) else 1.0,
            "ls": "-" if same_model else "--",
            "label": None if name in shown else name,
        }
        updates = experiment.updates_by_epoch(settings, len(values))
        ends = [ended + n / 1000 for n in updates]
        axis.plot(ends, values, **style)
        axis.axvline(ended, color="gray", lw=0.4)
        shown.add(name)
        ended = ends[-1]
    axis.legend(fontsize="small", loc="lower right")


def label(settings):
    """What tells the instances of a task apart."""
    if "support_size" in settings:
        return "({support_size}, {length})".format(**settings)
    return f"{settings['length']} symbols"


if __name__ == "__main__":
    draw()
