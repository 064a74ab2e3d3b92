"""bAbI question answering (§4.2): a story, read word by word, and a question at its end."""

from keras_mnm.tasks.babi.batches import Babi, bucket_lengths
from keras_mnm.tasks.babi.exchange import WordExchange
from keras_mnm.tasks.babi.files import (
    MAX_ANSWERS,
    NOT_ASKED,
    SPLITS,
    Questions,
    check_tasks,
    download,
    load,
    pack,
    parse,
)
from keras_mnm.tasks.babi.vocabulary import PADDING, PLACEHOLDER, TASKS, VOCABULARY, decode, encode

__all__ = [
    "MAX_ANSWERS",
    "NOT_ASKED",
    "PADDING",
    "PLACEHOLDER",
    "SPLITS",
    "TASKS",
    "VOCABULARY",
    "Babi",
    "Questions",
    "WordExchange",
    "bucket_lengths",
    "check_tasks",
    "decode",
    "download",
    "encode",
    "load",
    "pack",
    "parse",
]
