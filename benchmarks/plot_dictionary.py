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
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    for path in sorted((HERE / "results").glob("dictionary-*.json")):
        result = json.loads(path.read_text())
        accuracy = result["history"]["accuracy"]
        updates = [result["updates"] * (i + 1) / len(accuracy) for i in range(len(accuracy))]
        minutes = [result["training_seconds"] / 60 * u / result["updates"] for u in updates]
        instance, rule = path.stem.split("-")[1], path.stem[-1]
        label = f"MNM-{rule}, ({instance.replace('x', ', ')})"
        for axis, x in zip(axes, (updates, minutes)):
            axis.plot(x, accuracy, label=label)
    axes[0].set_xlabel("updates (batches of 32 episodes)")
    axes[1].set_xlabel("minutes on two CPU cores")
    axes[0].set_ylabel("symbol accuracy on fresh episodes")
    axes[1].legend(title="(examples seen, letters each)", loc="lower right")
    for axis in axes:
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
