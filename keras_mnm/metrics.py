import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mnm")
class SequenceAccuracy(keras.metrics.MeanMetricWrapper):
    """Share of samples whose whole answer is right: every symbol of `[B, l]`.

    Args:
        name: Defaults to `"sequence_accuracy"`.
        dtype: Defaults to `None`, Keras's float type.

    Example:

    >>> import keras_mnm, numpy as np
    >>> metric = keras_mnm.SequenceAccuracy()
    >>> metric.update_state(np.array([[0, 1], [1, 1]]), np.eye(2)[[[0, 1], [0, 1]]])
    >>> float(metric.result())
    0.5
    """

    def __init__(self, name="sequence_accuracy", dtype=None):
        super().__init__(_all_right, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def _all_right(targets, scores):
    right = ops.equal(ops.cast(targets, "int32"), ops.cast(ops.argmax(scores, axis=-1), "int32"))
    return ops.cast(ops.all(right, axis=-1), keras.backend.floatx())
