"""Dictionary inference (§4.1): translate a query after seeing a few translated examples."""

import numpy as np

from keras_mnm.tasks.episodes import Episodes
from keras_mnm.validation import integer

NUM_LETTERS = 26
END_OF_SEQUENCE, SEPARATOR, END_OF_SUPPORT, PLACEHOLDER = range(NUM_LETTERS, NUM_LETTERS + 4)
VOCABULARY = (*"abcdefghijklmnopqrstuvwxyz", "→", "|", "?", "_")
"""What each token looks like in `decode`."""

_SOURCE_LETTERS = NUM_LETTERS // 2
_MAX_ROUNDS = 100


def sequence_length(support_size, length):
    """Time steps `T = k (2 l + 2) + 2 l + 2` of a sample; 20, 90, 234, 442 in the paper."""
    return support_size * (2 * length + 2) + 2 * length + 2


def check_instance(support_size, length):
    """A ValueError where no such instance exists."""
    integer("support_size", support_size)
    integer("length", length)
    if length > 1 and support_size > _SOURCE_LETTERS**length // 2:
        raise ValueError(
            f"A support set of {support_size} sequences leaves too few unseen queries among the "
            f"{_SOURCE_LETTERS**length} sequences of length {length}. Use a support size of at "
            f"most {_SOURCE_LETTERS**length // 2}, or longer sequences."
        )


def make_batch(rng, batch_size, support_size, length):
    """Draws samples of the task.

    A sample has 13 source and 13 target letters of its own and a random bijection between them.
    Its token row, with `k = support_size` and `l = length`, is

        s…s EOS t…t SEP  (k times)  END  q…q EOS  _…_

    Support sequences `s` are drawn with replacement, `t` are their images. The query `q` has only
    letters that occur in the support, and (for `l > 1`) is none of the support's sequences. Its
    image is wanted at the placeholders.

    Args:
        rng: A `numpy.random.Generator`.
        batch_size: `B`.
        support_size: `k`.
        length: `l`.

    Returns:
        Tokens `[B, T]` and targets `[B, l]`, both int32.
    """
    letters = rng.random((batch_size, NUM_LETTERS)).argsort(axis=1)
    source, target = letters[:, :_SOURCE_LETTERS], letters[:, _SOURCE_LETTERS:]
    support, query = _draw_support_and_query(rng, batch_size, support_size, length)

    def spell(alphabet, indices):
        flat = indices.reshape(batch_size, -1)
        return np.take_along_axis(alphabet, flat, axis=1).reshape(indices.shape)

    examples = np.empty((batch_size, support_size, 2 * length + 2), "int32")
    examples[:, :, :length] = spell(source, support)
    examples[:, :, length] = END_OF_SEQUENCE
    examples[:, :, length + 1 : -1] = spell(target, support)
    examples[:, :, -1] = SEPARATOR

    tokens = np.full((batch_size, sequence_length(support_size, length)), PLACEHOLDER, "int32")
    end = examples[0].size
    tokens[:, :end] = examples.reshape(batch_size, -1)
    tokens[:, end] = END_OF_SUPPORT
    tokens[:, end + 1 : end + 1 + length] = spell(source, query)
    tokens[:, end + 1 + length] = END_OF_SEQUENCE
    return tokens, spell(target, query).astype("int32")


def _draw_support_and_query(rng, batch_size, support_size, length):
    """Indices into the source alphabet: support `[B, k, l]` and query `[B, l]`."""
    support = rng.integers(_SOURCE_LETTERS, size=(batch_size, support_size, length))
    query = _draw_query(rng, support)
    if length == 1:  # every letter that was seen is a support sequence
        return support, query
    for _ in range(_MAX_ROUNDS):
        seen = (support == query[:, None]).all(axis=2).any(axis=1)
        if not seen.any():
            return support, query
        support[seen] = rng.integers(_SOURCE_LETTERS, size=(seen.sum(), support_size, length))
        query[seen] = _draw_query(rng, support[seen])
    raise ValueError(
        f"Found no unseen query for a support set of {support_size} sequences of length {length}; "
        "use a smaller support set or longer sequences."
    )


def _draw_query(rng, support):
    """Letters drawn with replacement from those that occur in the support: `[B, l]`."""
    batch_size, _, length = support.shape
    occurs = np.zeros((batch_size, _SOURCE_LETTERS), bool)
    np.put_along_axis(occurs, support.reshape(batch_size, -1), True, axis=1)
    occurring_first = np.argsort(~occurs, axis=1, kind="stable")
    choice = rng.random((batch_size, length)) * occurs.sum(axis=1, keepdims=True)
    return np.take_along_axis(occurring_first, choice.astype(int), axis=1)


def decode(tokens):
    """The text of a row of tokens, for people to read."""
    return "".join(VOCABULARY[token] for token in np.asarray(tokens).ravel())


class DictionaryInference(Episodes):
    """Fresh batches of the task for `model.fit` and `model.evaluate`.

    Args:
        support_size: `k`. Defaults to `4`.
        length: `l`. Defaults to `1`.
        **kwargs: Arguments of `Episodes`: `batch_size`, `steps`, `seed`, `first_epoch`, `fixed`.

    Example:

    >>> import keras_mnm
    >>> tokens, targets = keras_mnm.tasks.DictionaryInference(4, 1, batch_size=2)[0]
    >>> tokens.shape, targets.shape
    ((2, 20), (2, 1))
    """

    def __init__(self, support_size=4, length=1, **kwargs):
        super().__init__(**kwargs)
        check_instance(support_size, length)
        self.support_size = support_size
        self.length = length

    def draw(self, rng, batch_size):
        return make_batch(rng, batch_size, self.support_size, self.length)
