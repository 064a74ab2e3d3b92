"""Double copy (§4.1, Fig. 4): repeat a sequence of symbols, twice."""

import numpy as np

from keras_mnm.tasks.episodes import Episodes
from keras_mnm.validation import integer

NUM_SYMBOLS = 10
DELIMITER, PLACEHOLDER = NUM_SYMBOLS, NUM_SYMBOLS + 1
VOCABULARY = (*"0123456789", "|", "_")
"""What each token looks like in `decode`."""

COPIES = 2


def sequence_length(length):
    """Time steps `T = 3 l + 1` of a sample; 151 in the paper."""
    return (1 + COPIES) * length + 1


def make_batch(rng, batch_size, length):
    """Draws samples of the task.

    A token row has `l = length` symbols, drawn with replacement from 10, the delimiter, and `2 l`
    placeholders, at which the symbols are wanted in their order, and then once again.

    Args:
        rng: A `numpy.random.Generator`.
        batch_size: `B`.
        length: `l`.

    Returns:
        Tokens `[B, 3 l + 1]` and targets `[B, 2 l]`, both int32.
    """
    symbols = rng.integers(NUM_SYMBOLS, size=(batch_size, length), dtype="int32")
    tokens = np.full((batch_size, sequence_length(length)), PLACEHOLDER, "int32")
    tokens[:, :length] = symbols
    tokens[:, length] = DELIMITER
    return tokens, np.tile(symbols, (1, COPIES))


def decode(tokens):
    """The text of a row of tokens, for people to read."""
    return "".join(VOCABULARY[token] for token in np.asarray(tokens).ravel())


class DoubleCopy(Episodes):
    """Fresh batches of the task for `model.fit` and `model.evaluate`.

    Args:
        length: Symbols a sequence, `l`. Defaults to `50`.
        **kwargs: Arguments of `Episodes`: `batch_size`, `steps`, `seed`, `first_epoch`, `fixed`.

    Example:

    >>> import keras_mnm
    >>> tokens, targets = keras_mnm.tasks.DoubleCopy(length=3, batch_size=2)[0]
    >>> tokens.shape, targets.shape
    ((2, 10), (2, 6))
    """

    def __init__(self, length=50, **kwargs):
        super().__init__(**kwargs)
        self.length = integer("length", length)

    def draw(self, rng, batch_size):
        return make_batch(rng, batch_size, self.length)
