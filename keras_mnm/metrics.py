import keras
from keras import ops

from keras_mnm.validation import fits


@keras.saving.register_keras_serializable(package="keras_mnm")
class SequenceAccuracy(keras.metrics.Mean):
    """Share of samples whose whole answer is right: every symbol of `[B, l]` or `[B, l, 1]`.

    Predictions are `[B, l, symbols]`, the highest counts. Symbols below 0 are not asked; a sample
    in which none is asked does not count. Sample weights are `[B]` or `[B, 1]`.

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
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, -1)
        if len(y_pred.shape) != 3 or not fits(y_true.shape, y_pred.shape[:-1]):
            raise ValueError(
                "SequenceAccuracy compares targets [B, l] with predictions [B, l, symbols]. "
                f"Received targets of shape {tuple(y_true.shape)} and predictions of shape "
                f"{tuple(y_pred.shape)}."
            )
        asked = ops.greater_equal(y_true, 0)
        right = ops.equal(ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        counts = ops.cast(ops.any(asked, axis=-1), self.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, self.dtype)
            shapes = (), counts.shape, (*counts.shape, 1)
            if not any(fits(sample_weight.shape, shape) for shape in shapes):
                raise ValueError(
                    "SequenceAccuracy weighs samples, not symbols: `sample_weight` must be a "
                    f"number, [B] or [B, 1]. Received shape {tuple(sample_weight.shape)}."
                )
            counts = counts * ops.reshape(sample_weight, (-1,))
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
    if len(logits.shape) != 3 or not fits(targets.shape, logits.shape):
        raise ValueError(
            "WrongBits compares targets and logits of the same shape [B, m, bits]. Received "
            f"targets of shape {tuple(targets.shape)} and logits of shape {tuple(logits.shape)}."
        )
    wrong = ops.not_equal(targets > 0, logits > 0)
    return ops.sum(ops.cast(wrong, keras.backend.floatx()), axis=(1, 2))
