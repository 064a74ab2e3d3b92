"""Priority sort (§4.1, Fig. 4; Graves et al. 2014): emit vectors in order of their priorities."""

import numpy as np

from keras_mnm.tasks.episodes import Episodes
from keras_mnm.validation import integer

BITS = 8
CHANNELS = BITS + 1
"""The bits of a vector, and its priority."""


def check_instance(vectors, sorted_vectors):
    """A ValueError where no such instance exists."""
    integer("vectors", vectors)
    integer("sorted_vectors", sorted_vectors)
    if sorted_vectors > vectors:
        raise ValueError(
            f"`sorted_vectors` can be at most `vectors`. Received: sorted_vectors={sorted_vectors},"
            f" vectors={vectors}."
        )


def make_batch(rng, batch_size, vectors, sorted_vectors):
    """Draws samples of the task.

    A sample begins with `n = vectors` random binary vectors of 8 bits, a step each, with a priority
    from U(-1, 1) on a channel of its own. Then come `m = sorted_vectors` steps of zeros, at which
    the `m` vectors of highest priority are wanted, in descending order.

    Args:
        rng: A `numpy.random.Generator`.
        batch_size: `B`.
        vectors: `n`.
        sorted_vectors: `m`.

    Returns:
        Inputs `[B, n + m, 9]` and targets `[B, m, 8]`, both float32.
    """
    bits = rng.integers(2, size=(batch_size, vectors, BITS)).astype("float32")
    priorities = rng.uniform(-1, 1, (batch_size, vectors)).astype("float32")
    inputs = np.zeros((batch_size, vectors + sorted_vectors, CHANNELS), "float32")
    inputs[:, :vectors, :BITS] = bits
    inputs[:, :vectors, BITS] = priorities
    order = np.argsort(-priorities, axis=1, kind="stable")[:, :sorted_vectors]
    return inputs, np.take_along_axis(bits, order[:, :, None], axis=1)


class PrioritySort(Episodes):
    """Fresh batches of the task for `model.fit` and `model.evaluate`.

    Args:
        vectors: Vectors a sample, `n`. Defaults to `20`.
        sorted_vectors: How many of them are wanted, `m ≤ n`. Defaults to `16`.
        **kwargs: Arguments of `Episodes`: `batch_size`, `steps`, `seed`, `first_epoch`, `fixed`.

    Example:

    >>> import keras_mnm
    >>> inputs, targets = keras_mnm.tasks.PrioritySort(batch_size=2)[0]
    >>> inputs.shape, targets.shape
    ((2, 36, 9), (2, 16, 8))
    """

    def __init__(self, vectors=20, sorted_vectors=16, **kwargs):
        super().__init__(**kwargs)
        check_instance(vectors, sorted_vectors)
        self.vectors = vectors
        self.sorted_vectors = sorted_vectors

    def draw(self, rng, batch_size):
        return make_batch(rng, batch_size, self.vectors, self.sorted_vectors)
