"""The paper's tasks: seeded generators and loaders that fit `model.fit`."""

from keras_mnm.tasks.dictionary import DictionaryInference

__all__ = ["DictionaryInference"]
