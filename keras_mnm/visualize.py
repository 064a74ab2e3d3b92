"""Pictures of training and of the memory (needs matplotlib: `pip install ".[viz]"`)."""

import numpy as np

from keras_mnm.files import save_figure
from keras_mnm.trace import memory_trace


def learning_curve(history, path, title, steps_per_epoch=1):
    """Draws losses, and beside them the other metrics, against updates into a PNG file.

    Args:
        history: A dict from names to one number an epoch, as `model.fit(...).history`; `val_...`
            may have None in epochs without validation.
        path: The PNG file.
        title: Heading of the picture.
        steps_per_epoch: Updates an epoch. Defaults to `1`.
    """
    from matplotlib.figure import Figure

    shown = [name for name in history if not name.startswith(("val_", "learning_rate"))]
    losses = [name for name in shown if "loss" in name]
    metrics = [name for name in shown if name not in losses]
    if not losses or not history[losses[0]]:
        raise ValueError(
            "`history` must have a loss with a number for each epoch, as `model.fit(...).history`. "
            f"Received a history of {list(history)}."
        )
    updates = [steps_per_epoch * (i + 1) for i in range(len(history[losses[0]]))]

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    figure.suptitle(title)
    marker = "o" if len(updates) < 5 else None  # a single point has no line
    for axis, names in zip(axes, (losses, metrics), strict=True):
        for name in names:
            (line,) = axis.plot(updates, history[name], marker=marker, label=name.replace("_", " "))
            looks = zip(updates, history.get(f"val_{name}", ()), strict=False)
            looks = [(update, value) for update, value in looks if value is not None]
            if looks:
                label = f"{line.get_label()}, validation"
                axis.plot(*zip(*looks, strict=True), "o--", color=line.get_color(), label=label)
        axis.set_xlim(0, updates[-1] + steps_per_epoch)
        axis.set_xlabel("updates")
        axis.grid(alpha=0.3)
        if names:
            axis.legend()
    axes[0].set_ylabel("loss")
    values = [value for name in losses for value in history[name]]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes[0].set_yscale("log")
    if metrics and all("accuracy" in name for name in metrics):
        axes[1].set_ylabel("accuracy")
        axes[1].set_ylim(-0.02, 1.02)
    elif len(metrics) == 1:
        axes[1].set_ylabel(metrics[0].replace("_", " "))
    save_figure(figure, path)


def reward_curve(episodes, rewards, path, title):
    """Draws rewards against episodes, with their running mean, into a PNG file (Fig. 6).

    Args:
        episodes: Episodes seen, ascending.
        rewards: The mean reward of an episode then.
        path: The PNG file.
        title: Heading of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.plot(episodes, rewards, color="C0", alpha=0.35, marker="o" if len(rewards) < 5 else None)
    width = max(1, len(rewards) // 50)
    axes.plot(episodes[width - 1 :], running_mean(rewards, width), color="C0")
    axes.set_xlim(0, 1.02 * episodes[-1])
    axes.set_xlabel("episodes")
    axes.set_ylabel("reward an episode")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def running_mean(values, width):
    """The mean of each `width` values in a row: `width - 1` values fewer.

    >>> from keras_mnm.visualize import running_mean
    >>> running_mean([1.0, 3.0, 5.0], 2).tolist()
    [2.0, 4.0]
    """
    return np.convolve(values, np.ones(width) / width, mode="valid")


def memory_maps(model, inputs, labels, path, title, queries=None, layer=None):
    """Draws how like each other the memory operations of different steps are (Fig. 5), as a PNG.

    Three maps, one below the other, of cosine similarities with the steps up to each: what is read
    against what was written before (a bright cell: this step recalls that one's content), what is
    written against what was written, and the keys of these writes. Heads are averaged for values
    and taken together for keys.

    Args:
        model: A model with an `MNM` layer.
        inputs: Inputs of the model for one sequence, `[1, T, ...]`.
        labels: `T` words, what the steps are called, in the order in which the layer takes them:
            with `go_backwards`, from the end.
        path: The PNG file.
        title: Heading of the picture.
        queries: The steps to draw as rows, a slice. Defaults to `None`, all.
        layer: The `MNM` layer or its name, see `keras_mnm.memory_trace`.
    """
    from matplotlib.figure import Figure

    trace = memory_trace(model, inputs, layer)
    steps = trace.values.shape[1]
    if trace.values.shape[0] != 1 or len(labels) != steps:
        raise ValueError(
            "memory_maps draws one sequence with a label for each step. Received "
            f"{trace.values.shape[0]} sequences of {steps} steps and {len(labels)} labels."
        )
    read, written = trace.readouts[0].mean(axis=1), trace.values[0].mean(axis=1)
    keys = trace.write_keys[0].reshape(steps, -1)
    maps = {
        "read $v^r$ at $t_2$, written $v^w$ at $t_1$": _cosine(read, written),
        "written $v^w$ at $t_2$ and $t_1$": _cosine(written, written),
        "write keys $k^w$ at $t_2$ and $t_1$": _cosine(keys, keys),
    }
    rows = range(steps)[queries or slice(None)]
    size = 2.0 + 0.2 * steps, 1.5 + len(maps) * (0.7 + 0.2 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    for axis, (name, values) in zip(
        figure.subplots(len(maps), sharex=True), maps.items(), strict=True
    ):
        past = np.arange(steps) <= np.array(rows)[:, None]
        image = axis.imshow(
            np.where(past, values[rows], np.nan), cmap="viridis", vmin=-1, vmax=1, aspect="auto"
        )
        axis.set_yticks(range(len(rows)), [labels[row] for row in rows], fontsize=8)
        axis.set_ylabel("$t_2$")
        axis.set_title(name, fontsize=10)
        figure.colorbar(image, ax=axis, label="cosine")
    axis.set_xticks(range(steps), labels, rotation=90, fontsize=8)
    axis.set_xlabel("$t_1$")
    save_figure(figure, path, dpi=120)


def _cosine(rows, columns):
    """Cosine similarities `[T, T]` of the rows of two `[T, n]`."""
    rows, columns = (
        x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (rows, columns)
    )
    return rows @ columns.T
