"""A model of your own with a memory: eight pairs are shown, and one is asked for by its key.

python examples/recall.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # keeps the progress bar readable

import keras
import numpy as np

import keras_mnm

PAIRS, SYMBOLS, UNITS = 8, 16, 64


class Recall(keras_mnm.tasks.Episodes):
    """Tokens `key value` for each pair and a key at the end, whose value is wanted: `0..SYMBOLS`.

    Keys and values have symbols of their own.
    """

    def draw(self, rng, batch_size):
        symbols = np.tile(np.arange(SYMBOLS), (batch_size, 1))
        keys = rng.permuted(symbols, axis=1)[:, :PAIRS]
        values = rng.integers(SYMBOLS, size=(batch_size, PAIRS))
        pairs = np.stack([keys, SYMBOLS + values], axis=2).reshape(batch_size, -1)
        asked = rng.integers(PAIRS, size=(batch_size, 1))
        key, value = (np.take_along_axis(x, asked, axis=1) for x in (keys, values))
        return np.concatenate([pairs, key], axis=1), value[:, 0]


def make_model():
    """An embedding of unit variance, a memory with large writes on a large φ_0, and logits."""
    tokens = keras.Input((2 * PAIRS + 1,), dtype="int32")
    unit_variance = keras.initializers.RandomNormal(stddev=1.0)
    x = keras.layers.Embedding(2 * SYMBOLS, UNITS, embeddings_initializer=unit_variance)(tokens)
    x = keras_mnm.MNM(
        UNITS,
        step_size=16 / UNITS,  # eight times the default
        memory_initializer=keras.initializers.Orthogonal(2.0),
    )(x)
    return keras_mnm.Model(tokens, keras.layers.Dense(SYMBOLS)(x))


def main(epochs=4, steps=100):
    keras.utils.set_random_seed(0)
    model = make_model()
    model.compile(
        keras.optimizers.Adam(3e-3, global_clipnorm=10.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "torch",
    )
    model.fit(Recall(batch_size=64, steps=steps), epochs=epochs)
    fresh = model.evaluate(Recall(batch_size=500, steps=2, seed=1), return_dict=True, verbose=0)
    print(f"Of 1,000 fresh questions {fresh['accuracy']:.1%} are answered right.")
    return fresh


if __name__ == "__main__":
    main()
