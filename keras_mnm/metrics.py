import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mnm")
class SequenceAccuracy(keras.metrics.Mean):
    """Share of samples whose whole answer is right: every symbol of `[B, l]`.

    Symbols below 0 are not asked; a sample in which none is asked does not count.

    Args:
        name: Defaults to `"sequence_accuracy"`.
        dtype: Defaults to `None`, Keras's float type.

    Example:

    >>> import keras_mnm, numpy as np
    >>> metric = keras_mnm.SequenceAccuracy()
    >>> metric.update_state(np.array([[0, 1], [-1, 1]]), np.eye(2)[[[0, 0], [0, 1]]])
    >>> float(metric.result())
    0.5
    """

    def __init__(self, name="sequence_accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        asked = ops.greater_equal(y_true, 0)
        right = ops.equal(ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        counts = ops.cast(ops.any(asked, axis=-1), self.dtype)
        if sample_weight is not None:
            counts = counts * ops.cast(sample_weight, self.dtype)
        all_right = ops.all(ops.logical_or(right, ops.logical_not(asked)), axis=-1)
        return super().update_state(all_right, counts)


@keras.saving.register_keras_serializable(package="keras_mnm")
class WrongBits(keras.metrics.MeanMetricWrapper):
    """Number of wrong bits in a sample's answer, `[B, m, bits]`: binary targets, and logits.

    Logits, not probabilities: what is above 0 counts as a 1.

    Args:
        name: Defaults to `"wrong_bits"`.
        dtype: Defaults to `None`, Keras's float type.

    Example:

    >>> import keras_mnm, numpy as np
    >>> metric = keras_mnm.WrongBits()
    >>> metric.update_state(np.array([[[0, 1], [1, 1]]]), np.array([[[-3.0, 2.0], [1.0, -1.0]]]))
    >>> float(metric.result())
    1.0
    """

    def __init__(self, name="wrong_bits", dtype=None):
        super().__init__(_wrong_bits, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def _wrong_bits(targets, logits):
    targets, logits = ops.convert_to_tensor(targets), ops.convert_to_tensor(logits)
    if targets.shape[1:] != logits.shape[1:] or len(logits.shape) != 3:
        raise ValueError(
            "WrongBits compares targets and logits of the same shape [B, m, bits]. Received "
            f"targets of shape {tuple(targets.shape)} and logits of shape {tuple(logits.shape)}."
        )
    wrong = ops.not_equal(targets > 0, logits > 0)
    return ops.sum(ops.cast(wrong, keras.backend.floatx()), axis=(1, 2))
