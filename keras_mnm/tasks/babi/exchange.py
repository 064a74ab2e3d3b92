"""Data augmentation: words of one kind are exchanged at random, alike in a whole question.

A story stays true when John and Daniel change places in it. Of most tasks there are many more such
stories than the files have, too many to learn by heart.
"""

import numpy as np

from keras_mnm.tasks.babi.files import NOT_ASKED
from keras_mnm.tasks.babi.vocabulary import VOCABULARY, encode

NAMES = (
    "antoine bernhard bill brian daniel fred greg jason jeff john julius sumit yann",
    "emily gertrude jessica julie lily mary sandra winona",
)
"""Of men and of women, which he and she tell apart in task 11."""
KINDS = (
    *NAMES,
    "bathroom bedroom cinema garden hallway kitchen office park school",
    "apple football milk",
    "frog lion rhino swan",
    "blue gray green pink red white yellow",
    "above below",
    "left right",
)
"""Words that may be exchanged for each other: what is true is true still, in all tasks but one."""
NAMES_ALONE = 20
"""The task in which places and objects have a reason: the hungry go to the kitchen."""


class WordExchange:
    """Exchanges words of one kind for each other in questions and their answers.

    In each question the words of a kind that its task knows are permuted at random: names, of men
    and of women, places, objects, animals, colors, left and right, above and below. In task 20
    names alone are, and in task 18 nothing. Directions (tasks 4 and 19), what fears whom (15), and
    shapes (17) stay.

    Args:
        questions: `Questions`, from which the words of each task are read.

    Example:

    >>> import numpy as np
    >>> from keras_mnm.tasks import babi
    >>> story = "Mary went to the kitchen. Sandra went to the garden. Where is Mary?"
    >>> tokens, answer = np.array([babi.encode(story)]), np.array([babi.encode("kitchen")])
    >>> questions = babi.Questions(tokens[0], np.array([0, tokens.size]), answer, np.array([1]))
    >>> exchange = babi.WordExchange(questions)
    >>> tokens, answer = exchange(np.random.default_rng(5), questions.tasks, tokens, answer)
    >>> babi.decode(tokens)
    'sandra went to the garden . mary went to the kitchen . where is sandra ?'
    >>> babi.decode(answer)
    'garden'
    """

    def __init__(self, questions):
        by_token = np.repeat(questions.tasks, questions.lengths)
        self.kinds = {}
        for task in np.unique(questions.tasks):
            known = np.unique(questions.tokens[by_token == task])
            kinds = NAMES if task == NAMES_ALONE else KINDS
            groups = [np.intersect1d(encode(kind), known) for kind in kinds]
            self.kinds[int(task)] = [group for group in groups if len(group) > 1]

    def __call__(self, rng, tasks, tokens, targets):
        """Exchanges words of one kind in some questions.

        Args:
            rng: A `numpy.random.Generator`.
            tasks: The questions' tasks, `[B]`, among those of the questions it was made from.
            tokens: `[B, T]`, as of `Questions.batch`.
            targets: `[B, 3]`.

        Returns:
            Tokens and targets of the same shapes.
        """
        if not set(np.unique(tasks)) <= set(self.kinds):
            raise ValueError(
                f"`tasks` must be among {sorted(self.kinds)}, of whose questions this exchange was "
                f"made. Received: {sorted(map(int, np.unique(tasks)))}."
            )
        becomes = np.tile(np.arange(len(VOCABULARY), dtype="int32"), (len(tasks), 1))
        for task in np.unique(tasks):
            rows = np.flatnonzero(np.asarray(tasks) == task)[:, None]
            for kind in self.kinds[int(task)]:
                becomes[rows, kind] = rng.permuted(np.tile(kind, (len(rows), 1)), axis=1)
        answers = np.take_along_axis(becomes, np.maximum(targets, 0), axis=1)
        return (
            np.take_along_axis(becomes, tokens, axis=1),
            np.where(targets == NOT_ASKED, NOT_ASKED, answers),
        )
