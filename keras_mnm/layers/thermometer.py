import keras
import numpy as np
from keras import ops

from keras_mnm.validation import integer, number


@keras.saving.register_keras_serializable(package="keras_mnm")
class Thermometer(keras.layers.Layer):
    """Codes the last feature of a vector, a number in [-1, 1], by soft thresholds.

    A single number hardly changes what a fresh controller does, and numbers close to each other
    change it alike. Here it becomes `thresholds` features `tanh(s (x - θ_i))`, the `θ_i` evenly
    from -1 to 1 (a thermometer code with soft steps); beyond these it says only which side. The
    other features stay as they are. Vectors of zeros do, too: they stand for steps without an
    input, and a true vector of zeros cannot be told from them.

    Args:
        thresholds: Integer of at least 2, the number of thresholds `n`. Defaults to `32`.
        sharpness: Slope of a step, `s`. Defaults to `None`, with which neighboring steps overlap:
            20 for 32 thresholds, and in proportion to their density.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `dtype`).

    Call arguments:
        inputs: Vectors, `[..., features]`. Half precision is the outputs' alone, for it would make
            numbers equal that are close.

    Returns:
        Coded vectors, `[..., features - 1 + thresholds]`.

    Example:

    >>> import numpy as np, keras_mnm
    >>> code = keras_mnm.Thermometer(3, sharpness=2.0)(np.array([[7.0, 0.5], [0.0, 0.0]]))
    >>> np.array(code).astype("float64").round(2).tolist()
    [[7.0, 1.0, 0.76, -0.76], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, thresholds=32, sharpness=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.thresholds = integer("thresholds", thresholds, minimum=2)
        if sharpness is None:
            sharpness = 20.0 * (self.thresholds - 1) / 31
        self.sharpness = float(number("sharpness", sharpness, low=1e-3))
        self.supports_masking = True

    def call(self, inputs):
        inputs = ops.cast(inputs, keras.backend.result_type(self.compute_dtype, "float32"))
        at = ops.cast(np.linspace(-1.0, 1.0, self.thresholds), inputs.dtype)
        steps = ops.tanh(self.sharpness * (inputs[..., -1:] - at))
        given = ops.any(ops.not_equal(inputs, 0.0), axis=-1, keepdims=True)
        steps = ops.where(given, steps, 0.0)
        return ops.cast(ops.concatenate([inputs[..., :-1], steps], axis=-1), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        features = input_shape[-1]
        return (*input_shape[:-1], features and features - 1 + self.thresholds)

    def get_config(self):
        config = {"thresholds": self.thresholds, "sharpness": self.sharpness}
        return {**super().get_config(), **config}
