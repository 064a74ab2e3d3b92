import keras
import numpy as np
from keras import ops

from keras_mnm.validation import integer, number


@keras.saving.register_keras_serializable(package="keras_mnm")
class Thermometer(keras.layers.Layer):
    """Codes the last feature of a vector, a number in [-1, 1], by soft thresholds.

    A single number hardly changes what a fresh controller does, and numbers close to each other
    change it alike. Here it becomes `thresholds` features `tanh(s (x - θ_i))`, the `θ_i` evenly
    from -1 to 1 (a thermometer code with soft steps). The other features stay as they are, and so
    do vectors of zeros, the steps without an input.

    Args:
        thresholds: Integer of at least 2, the number of thresholds `n`. Defaults to `32`.
        sharpness: Slope of a step, `s`. Defaults to `20.0`.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `dtype`).

    Call arguments:
        inputs: Vectors, `[..., features]`.

    Returns:
        Coded vectors, `[..., features - 1 + thresholds]`.

    Example:

    >>> import numpy as np, keras_mnm
    >>> code = keras_mnm.Thermometer(thresholds=3)(np.array([[7.0, 0.5], [0.0, 0.0]]))
    >>> np.array(code).round(2).tolist()
    [[7.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, thresholds=32, sharpness=20.0, **kwargs):
        super().__init__(**kwargs)
        self.thresholds = integer("thresholds", thresholds, minimum=2)
        self.sharpness = number("sharpness", sharpness)
        self.supports_masking = True

    def call(self, inputs):
        inputs = ops.cast(inputs, self.compute_dtype)
        at = ops.cast(np.linspace(-1.0, 1.0, self.thresholds), inputs.dtype)
        steps = ops.tanh(self.sharpness * (inputs[..., -1:] - at))
        given = ops.any(ops.not_equal(inputs, 0.0), axis=-1, keepdims=True)
        steps = ops.where(given, steps, 0.0)
        return ops.concatenate([inputs[..., :-1], steps], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] - 1 + self.thresholds)

    def get_config(self):
        config = {"thresholds": self.thresholds, "sharpness": self.sharpness}
        return {**super().get_config(), **config}
