"""Everything that differs between TensorFlow, JAX and torch lives here."""

import keras

NAME = keras.backend.backend()

if NAME == "tensorflow":
    import tensorflow as tf

    def gradient(function, arguments):
        """Gradient of the scalar `function(arguments)`, by a nested `tf.GradientTape`."""
        arguments = [tf.convert_to_tensor(argument) for argument in arguments]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arguments)
            value = function(arguments)
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(value, arguments, unconnected_gradients=zero)

    def is_concrete(x):
        """Whether the numbers in tensor `x` can be read now (no tracing under way)."""
        return not tf.is_tensor(x) or hasattr(x, "numpy")

elif NAME == "jax":
    import jax

    def gradient(function, arguments):
        """Gradient of the scalar `function(arguments)`, by `jax.grad`."""
        return jax.grad(function)(list(arguments))

    def is_concrete(x):
        """Whether the numbers in tensor `x` can be read now (no tracing under way)."""
        return not isinstance(x, jax.core.Tracer)

elif NAME == "torch":
    import torch

    def gradient(function, arguments):
        """Gradient of the scalar `function(arguments)`, by `torch.func.grad`."""
        return torch.func.grad(function)(list(arguments))

    def is_concrete(x):
        """Whether the numbers in tensor `x` can be read now (no tracing under way)."""
        return not torch.is_tensor(x) or x.device.type != "meta"

else:
    raise ImportError(
        f"keras_mnm runs on the Keras backends tensorflow, jax and torch; received {NAME!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before importing keras."
    )

TRACED_STEP_HIDES_STATE = NAME == "jax"
"""JAX computes the logs of a training step without access to the layers' weights."""
