"""The tasks' names, and the numbers of their words."""

import re

import numpy as np

TASKS = {
    1: "one supporting fact",
    2: "two supporting facts",
    3: "three supporting facts",
    4: "two argument relations",
    5: "three argument relations",
    6: "yes/no questions",
    7: "counting",
    8: "lists/sets",
    9: "simple negation",
    10: "indefinite knowledge",
    11: "basic coreference",
    12: "conjunction",
    13: "compound coreference",
    14: "time reasoning",
    15: "basic deduction",
    16: "basic induction",
    17: "positional reasoning",
    18: "size reasoning",
    19: "path finding",
    20: "agent's motivation",
}

_WORDS = """
a above afraid after afternoon afterwards and antoine apple are back bathroom bedroom before below
bernhard bigger bill blue bored box brian carrying cat cats chest chocolate chocolates cinema color
container daniel did discarded do does down dropped e east either emily evening fit fits following
football fred frog from garden gave gertrude get give go got grabbed gray green greg hallway handed
he how hungry in inside is jason jeff jessica john journeyed julie julius kitchen left lily lion
longer many mary maybe mice milk morning mouse moved n no none north not nothing objects of office
one or pajamas park passed picked pink put received rectangle red rhino right s sandra school she
sheep south sphere square suitcase sumit swan than that the then there they thirsty this three
tired to took travelled triangle two up w was went west what where white who why will winona wolf
wolves yann yellow yes yesterday you
"""
VOCABULARY = ("", "-", ".", "?", *_WORDS.split())
"""The token of each number: padding, the answers' placeholder, two marks, and 156 words."""
PADDING, PLACEHOLDER = 0, 1
_TOKEN = re.compile(r"\w+|[^\w\s]")
_NUMBERS = {token: number for number, token in enumerate(VOCABULARY) if number > PLACEHOLDER}


def encode(text):
    """Numbers of the tokens of a text, lower-cased; a ValueError names the words not known.

    >>> from keras_mnm.tasks import babi
    >>> babi.decode(babi.encode("Mary went to the kitchen."))
    'mary went to the kitchen .'
    """
    tokens = _TOKEN.findall(text.lower())
    unknown = sorted({token for token in tokens if token not in _NUMBERS})
    unknown = [token if token.isalnum() else repr(token) for token in unknown]
    if unknown:
        raise ValueError(
            f"not in the vocabulary: {', '.join(unknown)}. bAbI knows the marks . and ? and 156 "
            "words: keras_mnm.tasks.babi.VOCABULARY."
        )
    return [_NUMBERS[token] for token in tokens]


def decode(tokens):
    """The text of a row of tokens, padding and what is not asked left out."""
    return " ".join(VOCABULARY[token] for token in np.asarray(tokens).ravel() if token > PADDING)
