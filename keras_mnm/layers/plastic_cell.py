import keras
from keras import ops

from keras_mnm.configuration import at_least_float32, copy_of
from keras_mnm.validation import boolean, integer, number, one_step


@keras.saving.register_keras_serializable(package="keras_mnm")
class PlasticCell(keras.layers.Layer):
    """One time step of a recurrent network with Hebbian plasticity (Miconi et al. 2018).

    Every recurrent connection has a fixed part, and a plastic one, its Hebbian trace, which each
    sequence begins at zero:

        h_t = σ(W_x x_t + b + (W + α ∘ Hebb_{t-1})ᵀ h_{t-1})
        Hebb_t = (1 - η) Hebb_{t-1} + η h_{t-1} h_tᵀ

    The plasticity α and the rate η are trained with the weights.

    Args:
        units: Positive integer, units of the network.
        homogeneous: Whether all connections share one plasticity, so that α is a number and not
            `[units, units]`. Defaults to `False`.
        activation: σ. Defaults to `"tanh"`.
        initial_rate: Number in [0, 1], η before training. Defaults to `0.01`.
        kernel_initializer: Initializer of `W_x`. Defaults to `"glorot_uniform"`.
        recurrent_initializer: Initializer of `W` and α. Defaults to `None`, small positive numbers
            as in the original, uniform in [0, 0.01].
        dtype: The dtype policy. Half precisions, mixed or not, become `float32`, for a trace that
            is rounded forgets. Defaults to `None`, Keras's global policy.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `trainable`).

    Call arguments:
        inputs: `[B, features]`.
        states: `h` as `[B, units]`, and the trace as `[B, units²]`.

    Returns:
        The output `[B, units]`, and the list of new states.

    Example:

    >>> import keras, keras_mnm
    >>> layer = keras.layers.RNN(keras_mnm.PlasticCell(16))
    >>> layer(keras.random.normal((2, 5, 8))).shape == (2, 16)
    True
    """

    def __init__(
        self,
        units,
        homogeneous=False,
        activation="tanh",
        *,
        initial_rate=0.01,
        kernel_initializer="glorot_uniform",
        recurrent_initializer=None,
        dtype=None,
        **kwargs,
    ):
        super().__init__(dtype=at_least_float32(dtype), **kwargs)
        self.units = integer("units", units)
        self.homogeneous = boolean("homogeneous", homogeneous)
        self.activation = keras.activations.get(activation)
        self.initial_rate = number("initial_rate", initial_rate, high=1.0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(
            keras.initializers.RandomUniform(0.0, 0.01)
            if recurrent_initializer is None
            else recurrent_initializer
        )
        self.state_size = [self.units, self.units**2]
        self.output_size = self.units

    def build(self, input_shape):
        one_step(self, input_shape)
        square = (self.units, self.units)
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer=self.kernel_initializer, name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=square, initializer=copy_of(self.recurrent_initializer), name="recurrent_kernel"
        )
        self.plasticity = self.add_weight(
            shape=(1, 1) if self.homogeneous else square,
            initializer=copy_of(self.recurrent_initializer),
            name="plasticity",
        )
        self.rate = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(self.initial_rate), name="rate"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def get_initial_state(self, batch_size):
        """Zeros: no activity, no trace."""
        return [ops.zeros((batch_size, n), dtype=self.compute_dtype) for n in self.state_size]

    def call(self, inputs, states):
        before, trace = states
        trace = ops.reshape(trace, (-1, self.units, self.units))
        recurrent = self.recurrent_kernel + self.plasticity * trace
        recalled = ops.squeeze(ops.matmul(before[:, None], recurrent), 1)
        after = self.activation(ops.matmul(inputs, self.kernel) + self.bias + recalled)
        product = before[:, :, None] * after[:, None, :]
        trace = (1.0 - self.rate) * trace + self.rate * product
        return after, [after, ops.reshape(trace, (-1, self.units**2))]

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "homogeneous": self.homogeneous,
            "activation": keras.activations.serialize(self.activation),
            "initial_rate": self.initial_rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
        }
