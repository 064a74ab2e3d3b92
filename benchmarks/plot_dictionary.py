"""Draws `docs/dictionary.png`, the learning curves in `benchmarks/results/dictionary-*.json`.

python benchmarks/plot_dictionary.py
"""

import json
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = pathlib.Path(__file__).parent


def main():
    figure, axis = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    for path in sorted((HERE / "results").glob("dictionary-*.json")):
        result = json.loads(path.read_text())
        stages, before = [result], result.get("started_from")
        while before:
            stages.insert(0, before)
            before = before.get("started_from")
        updates, accuracy, done = [], [], 0
        for stage in stages:
            if stage["settings"]["length"] == result["settings"]["length"]:
                step = stage["updates"] / len(stage["accuracy"])
                updates += [done + step * (i + 1) for i in range(len(stage["accuracy"]))]
                accuracy += stage["accuracy"]
            done += stage["updates"]
        instance, rule = path.stem.split("-")[1], path.stem[-1]
        label = f"MNM-{rule}, ({instance.replace('x', ', ')})"
        axis.plot(updates, accuracy, label=label)
    axis.set_xlabel("updates of 32 episodes; (8, 4) begins with the weights of (4, 1)")
    axis.set_ylabel("symbol accuracy, fresh episodes")
    axis.legend(title="(examples seen, letters each)", loc="lower right")
    axis.grid(alpha=0.3)
    axis.set_xlim(left=0)
    axis.set_ylim(-0.02, 1.02)
    figure.suptitle("Dictionary inference: translating by an alphabet learned from a few examples")
    path = HERE.parent / "docs" / "dictionary.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"Drawn to {path}")


if __name__ == "__main__":
    main()
