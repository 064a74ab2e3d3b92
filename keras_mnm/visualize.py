"""Pictures of training (needs matplotlib: `pip install "keras-mnm[viz]"`)."""

import pathlib

from keras_mnm.files import replacing


def learning_curve(history, path, title, steps_per_epoch=1):
    """Draws losses, and beside them the other metrics, against updates into a PNG file.

    Args:
        history: A dict from names to one number an epoch, as `model.fit(...).history`.
        path: The PNG file.
        title: Heading of the picture.
        steps_per_epoch: Updates an epoch. Defaults to `1`.
    """
    from matplotlib.figure import Figure

    shown = [name for name in history if not name.startswith(("val_", "learning_rate"))]
    losses = [name for name in shown if "loss" in name]
    metrics = [name for name in shown if name not in losses]
    updates = [steps_per_epoch * (i + 1) for i in range(len(history[shown[0]]))]

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    figure.suptitle(title)
    marker = "o" if len(updates) < 5 else None  # a single point has no line
    for axis, names in zip(axes, (losses, metrics), strict=True):
        for name in names:
            axis.plot(updates, history[name], marker=marker, label=name.replace("_", " "))
        axis.set_xlim(0, updates[-1] + steps_per_epoch)
        axis.set_xlabel("updates")
        axis.grid(alpha=0.3)
        if names:
            axis.legend()
    axes[0].set_ylabel("loss")
    values = [value for name in losses for value in history[name]]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes[0].set_yscale("log")
    if all("accuracy" in name for name in metrics):
        axes[1].set_ylabel("accuracy")
        axes[1].set_ylim(-0.02, 1.02)
    elif len(metrics) == 1:
        axes[1].set_ylabel(metrics[0].replace("_", " "))
    with replacing(pathlib.Path(path)) as temporary:
        figure.savefig(temporary, dpi=150)


def reward_curve(episodes, rewards, path, title):
    """Draws rewards against episodes, with their running mean, into a PNG file (Fig. 6).

    Args:
        episodes: Episodes seen, ascending.
        rewards: The mean reward of an episode then.
        path: The PNG file.
        title: Heading of the picture.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.plot(episodes, rewards, color="C0", alpha=0.35, marker="." if len(rewards) < 5 else None)
    width = max(1, len(rewards) // 50)
    smooth = np.convolve(rewards, np.ones(width) / width, mode="valid")
    axes.plot(episodes[width - 1 :], smooth, color="C0")
    axes.set_xlim(0, episodes[-1])
    axes.set_xlabel("episodes")
    axes.set_ylabel("reward an episode")
    axes.grid(alpha=0.3)
    with replacing(pathlib.Path(path)) as temporary:
        figure.savefig(temporary, dpi=150)
