"""How strongly trained memories write: the rates β of the presets of the algorithmic tasks.

A rate is at most 1. Where most are 1, a larger `step_size` lets a model write more.
"""

import experiment
import numpy as np
from markdown_table import markdown_table

import keras_mnm
from keras_mnm.trace import memory_layer

MODELS = (
    "dictionary-4x1-mnm-p",
    "dictionary-4x1-mnm-g",
    "dictionary-8x4-mnm-p",
    "dictionary-8x4-mnm-g",
    "dictionary-12x8-mnm-p",
    "dictionary-12x8-mnm-g",
    "dictionary-16x12-mnm-p",
    "dictionary-16x12-mnm-g",
    "double-copy-mnm-p",
    "double-copy-mnm-g",
    "priority-sort-mnm-p",
    "priority-sort-mnm-g",
)
EPISODES = 32
SEED = 0
FULL = 0.99
"""A rate above is as good as 1."""
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def measure(quick):
    models = MODELS[:1] if quick else MODELS
    return {name: figures(name, 2 if quick else EPISODES) for name in models}


def figures(name, episodes):
    model = keras_mnm.from_preset(name)
    task = experiment.task_of(keras_mnm.list_presets()[name]["training"]["settings"])
    inputs, _ = task.fresh_episodes(model, episodes, SEED)
    rates = np.asarray(keras_mnm.memory_trace(model, inputs).rates)
    cell = memory_layer(model).cell
    return {
        "step_size": cell.memory.step_size_for(cell.num_heads),
        "full_rates": float((rates > FULL).mean()),
        "quantiles": {str(level): float(np.quantile(rates, level)) for level in LEVELS},
        "episodes": episodes,
        "seed": SEED,
    }


def table(results):
    columns = ["preset", "step size", f"rates above {FULL}", *(f"quantile {q}" for q in LEVELS)]
    rows = []
    for name, result in results.items():
        quantiles = [f"{value:.2f}" for value in result["quantiles"].values()]
        rows.append([name, f"{result['step_size']:g}", f"{result['full_rates']:.0%}", *quantiles])
    return markdown_table(columns, rows)
