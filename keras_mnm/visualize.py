"""Pictures of training (needs matplotlib: `pip install "keras-mnm[viz]"`)."""

import pathlib

from keras_mnm.files import replacing


def learning_curve(history, path, title, steps_per_epoch=1):
    """Draws losses and accuracies against updates into a PNG file.

    Args:
        history: A dict from names to one number an epoch, as `model.fit(...).history`.
        path: The PNG file.
        title: Heading of the picture.
        steps_per_epoch: Updates an epoch. Defaults to `1`.
    """
    from matplotlib.figure import Figure

    shown = [name for name in history if not name.startswith(("val_", "learning_rate"))]
    accuracies = [name for name in shown if "accuracy" in name]
    losses = [name for name in shown if name not in accuracies]
    updates = [steps_per_epoch * (i + 1) for i in range(len(history[shown[0]]))]

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    figure.suptitle(title)
    for axis, names, label in zip(axes, (losses, accuracies), ("loss", "accuracy"), strict=True):
        for name in names:
            axis.plot(updates, history[name], label=name.replace("_", " "))
        axis.set_xlabel("updates")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if names:
            axis.legend()
    axes[0].set_yscale("log")
    axes[1].legend(loc="lower right")
    axes[1].set_ylim(-0.02, 1.02)
    with replacing(pathlib.Path(path)) as temporary:
        figure.savefig(temporary, dpi=150)
