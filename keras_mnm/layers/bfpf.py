import keras
from keras import initializers, ops

from keras_mnm.configuration import copy_of
from keras_mnm.validation import boolean, integer


@keras.saving.register_keras_serializable(package="keras_mnm")
class BFPF(keras.layers.Layer):
    """The feedback prediction functions of all memory layers, `ẑ^l = q^l(v)` (§3.4).

    From a target value, predicts the activation that every memory layer should show for it; the
    local write (Eq. 4) then pulls each layer towards its own prediction, all layers in parallel.
    One dense layer per memory layer, computed as one product.

    A layer of your own can take its place in `NeuralMemory` and `MNMCell`: anything that maps
    `[N, units]` to `[N, depth * units]`, an MLP for instance.

    Args:
        units: Positive integer, the memory units `D`.
        depth: Positive integer, the number of memory layers `L`. Defaults to `3`.
        activation: Activation of the predictions. Defaults to `None` (linear).
        use_bias: Whether to add a bias. Defaults to `True`.
        kernel_initializer: Initializer of each `[D, D]` kernel. Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of the biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        kernel_constraint: Constraint of the kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `dtype`, `trainable`).

    Call arguments:
        values: Target values, `[..., units]`.

    Returns:
        The expected activations of layers 1 to `depth`, side by side: `[..., depth * units]`.

    Example:

    >>> import keras, keras_mnm
    >>> feedback = keras_mnm.BFPF(units=8, depth=3)
    >>> feedback(keras.random.normal((2, 8))).shape[-1]
    24
    """

    def __init__(
        self,
        units,
        depth=3,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        kernel_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = integer("units", units)
        self.depth = integer("depth", depth)
        self.activation = keras.activations.get(activation)
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)

    def build(self, input_shape):
        if input_shape[-1] != self.units:
            raise ValueError(
                f"BFPF predicts from target values of {self.units} units (its `units`); "
                f"received values of shape {tuple(input_shape)}."
            )
        self.kernel = self.add_weight(
            shape=(self.units, self.depth * self.units),
            initializer=self._side_by_side,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.depth * self.units,), initializer=self.bias_initializer, name="bias"
            )

    def _side_by_side(self, shape, dtype=None):
        # Each layer's kernel gets the fans of a square matrix, not those of the wide product.
        kernels = [
            copy_of(self.kernel_initializer)((self.units, self.units), dtype=dtype)
            for _ in range(self.depth)
        ]
        return ops.concatenate(kernels, axis=-1)

    def call(self, values):
        predictions = ops.matmul(values, self.kernel)
        if self.use_bias:
            predictions = predictions + self.bias
        return self.activation(predictions)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.depth * self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "depth": self.depth,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
        }
