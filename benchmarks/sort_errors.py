"""Where priority sort goes wrong: which vectors an answer mixes, and for what priorities.

Each answer is explained by the vectors of the episode in their right order, by least squares: a
model that sorts has all the weight on the wanted one. Beside that the wrong bits by the gap between
the wanted vector's priority and the nearest other one, and by the time at which it was shown.
"""

import experiment
import numpy as np
from markdown_table import markdown_table

import keras_mnm
from keras_mnm.files import save_figure

MODELS = ("priority-sort-mnm-p", "priority-sort-mnm-g", "priority-sort-lstm-salu")
EPISODES = 2000
SEED = 0
NEIGHBORS = 3
"""Ranks before and behind the wanted one."""


def measure(quick):
    models = MODELS[:1] if quick else MODELS
    return {name: figures(name, 100 if quick else EPISODES) for name in models}


def figures(name, episodes):
    task = experiment.task_of({"task": "priority-sort"})
    model = keras_mnm.from_preset(name)
    inputs, targets = task.fresh_episodes(model, episodes, SEED)
    logits = model.predict(inputs, batch_size=250, verbose=0)
    wanted, vectors = targets.shape[1], inputs.shape[1] - targets.shape[1]
    bits, priorities = inputs[:, :vectors, :-1], inputs[:, :vectors, -1]
    order = np.argsort(-priorities, axis=1, kind="stable")
    ranked = np.take_along_axis(bits, order[..., None], axis=1)
    wrong = ((logits > 0) != (targets > 0)).sum(axis=2)
    gaps = gaps_to_the_nearest(np.take_along_axis(priorities, order, axis=1))[:, :wanted]
    probabilities = 1.0 / (1.0 + np.exp(-logits))
    return {
        "wrong_bits": float(wrong.sum(axis=1).mean()),
        "wrong_bits_by_rank": wrong.mean(axis=0).tolist(),
        "weights_by_rank": weights_by_rank(ranked, probabilities),
        "wrong_bits_by_gap": by_quarter(gaps, wrong),
        "wrong_bits_by_time": by_quarter(order[:, :wanted], wrong),
        "episodes": episodes,
        "seed": SEED,
    }


def gaps_to_the_nearest(priorities):
    """From each of some sorted numbers to the nearest other one."""
    gaps = -np.diff(priorities, axis=1)
    far = np.full((len(gaps), 1), np.inf)
    return np.minimum(np.hstack([far, gaps]), np.hstack([gaps, far]))


def weights_by_rank(ranked, probabilities):
    """Mean weights of the vectors around the wanted one, of the ranks that have them all."""
    vectors = ranked.shape[1]
    explaining = np.moveaxis(ranked, 1, 2).reshape(-1, vectors) - 0.5
    rows = []
    for rank in range(NEIGHBORS, min(probabilities.shape[1], vectors - NEIGHBORS)):
        answer = probabilities[:, rank].reshape(-1) - 0.5
        weights = np.linalg.lstsq(explaining, answer, rcond=None)[0]
        rows.append(weights[rank - NEIGHBORS : rank + NEIGHBORS + 1])
    offsets = range(-NEIGHBORS, NEIGHBORS + 1)
    return dict(zip(map(str, offsets), np.mean(rows, axis=0).tolist(), strict=True))


def by_quarter(causes, wrong):
    """Wrong bits of a vector, by the quarters of what may cause them, each with its least."""
    starts = np.quantile(causes, [0.0, 0.25, 0.5, 0.75])
    quarter = np.searchsorted(starts, causes, side="right")
    means = [float(wrong[quarter == q].mean()) for q in range(1, 5)]
    return [{"from": float(s), "wrong_bits": m} for s, m in zip(starts, means, strict=True)]


def table(results):
    offsets = range(-1, 2)
    quarters = next(iter(results.values()))["wrong_bits_by_gap"]
    columns = ["model", "wrong bits of 128"]
    columns += [f"weight of rank {n:+d}" if n else "of the wanted" for n in offsets]
    columns += [f"wrong bits of 8, gaps from {q['from']:.3f}" for q in quarters]
    rows = []
    for name, result in results.items():
        cells = [name, f"{result['wrong_bits']:.1f}"]
        cells += [f"{result['weights_by_rank'][str(n)]:.2f}" for n in offsets]
        cells += [f"{q['wrong_bits']:.2f}" for q in result["wrong_bits_by_gap"]]
        rows.append(cells)
    return markdown_table(columns, rows)


def draw(results, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle("Priority sort: when an answer is wrong")
    by_rank, by_gap = figure.subplots(1, 2)
    for name, result in results.items():
        ranks = range(1, 1 + len(result["wrong_bits_by_rank"]))
        by_rank.plot(ranks, result["wrong_bits_by_rank"], marker="o", markersize=3, label=name)
        means = [quarter["wrong_bits"] for quarter in result["wrong_bits_by_gap"]]
        by_gap.plot(range(1, 5), means, marker="o", markersize=3, label=name)
    by_rank.set_xlabel("rank of the wanted vector")
    by_gap.set_xlabel("gap to the nearest other priority, by quarters")
    by_gap.set_xticks(range(1, 5), ["least", "2nd", "3rd", "most"])
    for axis in (by_rank, by_gap):
        axis.set_ylabel("wrong bits of 8")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    by_rank.legend(loc="upper left", fontsize="small")
    save_figure(figure, path, dpi=130)
