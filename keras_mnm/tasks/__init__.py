from keras_mnm.tasks.dictionary import DictionaryInference

__all__ = ["DictionaryInference"]
