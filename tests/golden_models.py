"""Writes the models in `tests/golden/`, which later versions must still load and match.

python tests/golden_models.py NAME

A name is a version of the package; files of earlier versions are never written again.
"""

import pathlib
import sys

import keras
import numpy as np

import keras_mnm

GOLDEN = pathlib.Path(__file__).parent / "golden"


def make():
    """All layers with arguments away from their defaults, and outputs that differ by each."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(5, 4, mask_zero=True)(tokens)
    x = keras_mnm.MNM(6, 5, 2, memory_depth=2, return_sequences=True, meta_loss_weight=0.5)(x)
    cell = keras_mnm.MNMCell(
        5,
        num_heads=2,
        write_rule="gradient",
        controller=keras.layers.GRUCell(7),
        rate_per_layer=True,
        recall_delay=1,
        step_size=0.3,
        memory_output_activation="tanh",
    )
    x = keras.layers.RNN(cell, return_sequences=True)(x)
    x = keras_mnm.SALU(6, 5, 2, slots=8)(x)
    model = keras_mnm.Model(tokens, x)
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(rng.uniform(-0.5, 0.5, weight.shape))
    return model


def main(name):
    model = make()
    x = np.array([[1, 2, 3, 4, 0, 0], [4, 4, 1, 2, 3, 1], [3, 0, 1, 0, 2, 2]])
    model.save(GOLDEN / f"{name}.keras")
    np.savez(GOLDEN / f"{name}.npz", x=x, y=keras.ops.convert_to_numpy(model(x)))


if __name__ == "__main__":
    main(*sys.argv[1:])
