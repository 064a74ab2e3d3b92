"""The paper's tasks: seeded generators and loaders that fit `model.fit`."""

from keras_mnm.tasks import babi
from keras_mnm.tasks.babi import Babi
from keras_mnm.tasks.dictionary import DictionaryInference
from keras_mnm.tasks.double_copy import DoubleCopy
from keras_mnm.tasks.episodes import Episodes
from keras_mnm.tasks.priority_sort import PrioritySort

__all__ = ["Babi", "DictionaryInference", "DoubleCopy", "Episodes", "PrioritySort", "babi"]
