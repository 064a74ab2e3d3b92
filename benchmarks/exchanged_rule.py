"""Memories that learned with local writes, written by gradients instead, without any training.

The dictionary presets of MNM-p, and the same weights in MNM-g, for several step sizes: how far a
gradient step can stand in for the learned writes.
"""

import dictionary_inference
import experiment
from markdown_table import markdown_table

import keras_mnm

PRESETS = (
    "dictionary-4x1-mnm-p",
    "dictionary-8x4-mnm-p",
    "dictionary-12x8-mnm-p",
    "dictionary-16x12-mnm-p",
)
STEP_SIZES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.1)
EPISODES = 500
SEED = 0


def measure(quick):
    presets, step_sizes = (PRESETS[:1], STEP_SIZES[:1]) if quick else (PRESETS, STEP_SIZES)
    return {name: figures(name, step_sizes, 2 if quick else EPISODES) for name in presets}


def figures(name, step_sizes, episodes):
    task = dictionary_inference.TASK
    local = keras_mnm.from_preset(name)
    instance = task.instance_of(local)
    inputs, targets = task.fresh_episodes(local, episodes, SEED)

    def symbol_accuracy(model):
        outputs = model.predict(inputs, batch_size=250, verbose=0)
        return task.figures(outputs, targets)["symbol_accuracy"]

    def by_gradients(step_size):
        layer = task.recurrent_layer("mnm-g", step_size=step_size)
        model = task.make_model(instance, layer)
        experiment.take_weights(model, name, step_size)
        return model

    return {
        "local": symbol_accuracy(local),
        "gradient": {str(size): symbol_accuracy(by_gradients(size)) for size in step_sizes},
        "episodes": episodes,
        "seed": SEED,
    }


def table(results):
    sizes = list(next(iter(results.values()))["gradient"])
    columns = ["weights of", "local writes", *(f"gradient, η = {size}" for size in sizes)]
    rows = []
    for name, result in results.items():
        found = [result["local"], *result["gradient"].values()]
        rows.append([name, *(f"{value:.3f}" for value in found)])
    return markdown_table(columns, rows)
