"""Batches of questions of about the same length."""

import numpy as np

from keras_mnm.tasks.babi.exchange import WordExchange
from keras_mnm.tasks.episodes import Episodes
from keras_mnm.validation import integer, number


def bucket_lengths(lengths, max_padding=0.09):
    """The fewest row lengths to pad to with at most this share of padding.

    Rows are padded to the next of the lengths. For each number of them the best ones are found by
    dynamic programming over the distinct lengths.

    Args:
        lengths: Integers, the rows' lengths.
        max_padding: Share of padding among all tokens. Defaults to `0.09`.

    Returns:
        A sorted list of lengths, the longest row's the last of them.

    Example:

    >>> from keras_mnm.tasks import babi
    >>> babi.bucket_lengths([4, 5, 5, 40, 40], max_padding=0.02)
    [5, 40]
    """
    number("max_padding", max_padding, high=1.0)
    distinct, counts = np.unique(lengths, return_counts=True)
    if not len(distinct) or distinct[0] < 1:
        raise ValueError(
            f"`lengths` must be positive, at least one. Received {len(lengths)} from "
            f"{min(lengths, default=None)} on."
        )
    below = np.concatenate([[0], np.cumsum(counts)])
    total = np.sum(distinct * counts)
    # tokens[j]: of the rows with the j smallest lengths, padded to as many lengths as the round.
    tokens = np.full(len(distinct) + 1, np.inf)
    tokens[0] = 0.0
    choices = []
    while True:
        # cost[j, i]: the last length is the j-th, and pads the rows from the i-th on.
        cost = tokens[None] + distinct[:, None] * (below[1:, None] - below[None])
        cost[np.arange(len(distinct) + 1)[None] > np.arange(len(distinct))[:, None]] = np.inf
        choices.append(cost.argmin(axis=1))
        tokens = np.concatenate([[np.inf], cost.min(axis=1)])
        if 1.0 - total / tokens[-1] <= max_padding:
            break
    found, j = [], len(distinct)
    for choice in reversed(choices):
        found.append(int(distinct[j - 1]))
        j = choice[j - 1]
    return found[::-1]


class Babi(Episodes):
    """Batches of bAbI questions for `model.fit` and `model.evaluate`, bucketed by length.

    Every question comes once in a pass over the data, unless `repeat` says otherwise, in an order
    drawn for each pass, among questions of about its length. Batch `i` of epoch `e` depends on
    `(seed, e, i)` alone. Where the questions of a length do not fill its last batch, they join
    those of the next length; what is missing at the very end are empty rows, in which nothing is
    asked.

    Args:
        questions: `Questions`, as `load` returns them.
        batch_size: Questions a batch. Defaults to `128`.
        max_tokens: Tokens a batch, at most; the batches of the longest rows have fewer questions.
            Defaults to `32768`.
        lengths: The lengths to pad to. Defaults to `bucket_lengths(questions.lengths)`.
        steps: Batches an epoch. Defaults to those of one pass over the questions.
        repeat: How often a pass has the questions of a task, as a dict from its number, for
            instance `{16: 10}`. Defaults to `None`, once each.
        exchange_words: Whether to exchange words of one kind, such as names, at random in each
            question, see `WordExchange`. Defaults to `False`.
        **kwargs: More arguments of `Episodes`: `seed`, `first_epoch`, `fixed`.
    """

    def __init__(
        self,
        questions,
        batch_size=128,
        max_tokens=32768,
        lengths=None,
        steps=None,
        repeat=None,
        exchange_words=False,
        **kwargs,
    ):
        if not len(questions.tasks):
            raise ValueError("`questions` must hold at least one question. Received none.")
        self.questions = questions
        self.max_tokens = integer("max_tokens", max_tokens)
        lengths = np.unique(bucket_lengths(questions.lengths) if lengths is None else lengths)
        longest = int(questions.lengths.max())
        # None is longer than need be: the longest takes what is left over.
        self.lengths = lengths[: np.searchsorted(lengths, longest) + 1]
        if lengths.max(initial=0) < longest or lengths[0] < 1 or max_tokens < self.lengths[-1]:
            raise ValueError(
                f"the longest question has {longest} tokens; `lengths` must be positive and reach "
                "it, and `max_tokens` be no less than the first that does. Received: "
                f"lengths={lengths.tolist()}, max_tokens={max_tokens}."
            )
        self._buckets = np.searchsorted(self.lengths, questions.lengths)
        self._repeats = np.ones(len(questions.tasks), int)
        for task, times in _counts(repeat).items():
            if task not in questions.tasks:
                raise ValueError(f"`repeat` names task {task!r}, of which there are no questions.")
            self._repeats[questions.tasks == task] = integer(f"repeat[{task}]", times)
        self._order = (None, None)
        self._exchange = WordExchange(questions) if exchange_words else None
        super().__init__(batch_size, **kwargs)
        self.batches = len(self._shuffled(0))
        self.steps = self.batches if steps is None else integer("steps", steps)

    def batch_size_of(self, length):
        """Rows of the batches of this length."""
        return max(1, min(self.batch_size, self.max_tokens // int(length)))

    @property
    def padding(self):
        """Share of padding among the tokens of a pass."""
        tokens = sum(self.batch_size_of(length) * length for length, _ in self._shuffled(0))
        return 1.0 - float(np.sum(self._repeats * self.questions.lengths) / tokens)

    def rows(self, index):
        """The length of batch `index` of this epoch, and the numbers of its questions."""
        self._take(index)
        turn, place = divmod(self.epoch * self.steps + index, self.batches)
        order = self._order  # another thread may change it meanwhile
        if order[0] != turn:
            self._order = order = (turn, self._shuffled(turn))
        return order[1][place]

    def __getitem__(self, index):
        length, rows = self.rows(index)
        tokens, targets = self.questions.batch(rows, self.batch_size_of(length), length)
        if self._exchange:
            rng, n = np.random.default_rng((self.seed, self.epoch, index)), len(rows)
            tasks = self.questions.tasks[rows]
            tokens[:n], targets[:n] = self._exchange(rng, tasks, tokens[:n], targets[:n])
        return tokens, targets

    def _shuffled(self, turn):
        """The batches of a pass: pairs of a length and the numbers of questions."""
        rng = np.random.default_rng((self.seed, turn))
        batches, rest = [], np.empty(0, int)
        for bucket, length in enumerate(map(int, self.lengths)):
            inside = np.flatnonzero(self._buckets == bucket)
            own = rng.permutation(np.repeat(inside, self._repeats[inside]))
            rows, size = np.concatenate([rest, own]), self.batch_size_of(length)
            is_last = bucket == len(self.lengths) - 1
            end = len(rows) if is_last else len(rows) // size * size
            batches += [(length, rows[i : i + size]) for i in range(0, end, size)]
            rest = rows[end:]
        return [batches[i] for i in rng.permutation(len(batches))]


def _counts(repeat):
    """`repeat` as a dict, or a ValueError."""
    if not isinstance(repeat or {}, dict):
        raise ValueError(
            "`repeat` must be a dict from a task's number to a count, as {16: 10}. Received: "
            f"repeat={repeat!r}."
        )
    return repeat or {}
