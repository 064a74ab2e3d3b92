"""Everything that differs between TensorFlow, JAX and torch lives here.

- `gradient(function, arguments)`: the gradient of a scalar function, differentiable again.
- `custom_gradient(forward, backward)`: a function of tensors with a derivative of its own.
  `forward(*arguments)` returns a list of outputs and a list of residuals;
  `backward(residuals, cotangents)` returns one cotangent for each argument.
- `scan(step, carry, inputs, length, reverse=False)`: a loop over the first axis of `inputs`;
  `step(carry, input)` returns the new carry and an output, both flat lists.
- `is_concrete(x)`: whether the numbers in `x` can be read now (no tracing under way).
- `TRACED_STEP_HIDES_STATE`: whether the logs of a training step are computed without access to
  the layers' weights.
"""

import keras

NAME = keras.backend.backend()
TRACED_STEP_HIDES_STATE = NAME == "jax"

if NAME == "tensorflow":
    import tensorflow as tf

    def gradient(function, arguments):
        """See the module."""
        arguments = [tf.convert_to_tensor(argument) for argument in arguments]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arguments)
            value = function(arguments)
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(value, arguments, unconnected_gradients=zero)

    def custom_gradient(forward, backward):
        """See the module."""

        @tf.custom_gradient
        def function(*arguments):
            outputs, residuals = forward(*arguments)
            return outputs, lambda *cotangents: backward(residuals, cotangents)

        # A tf.Variable among the arguments would need a gradient of its own.
        return lambda *arguments: function(*map(tf.convert_to_tensor, arguments))

    def scan(step, carry, inputs, length, reverse=False):
        """See the module."""
        arrays = [
            tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in inputs
        ]
        # The outputs' types are known only once the step is traced; XLA drops this extra call.
        _, specs = step(carry, [x[0] for x in inputs])
        outputs = [tf.TensorArray(y.dtype, length, element_shape=y.shape) for y in specs]

        def body(count, carry, outputs):
            index = length - 1 - count if reverse else count
            carry, ys = step(carry, [array.read(index) for array in arrays])
            outputs = [array.write(index, y) for array, y in zip(outputs, ys, strict=True)]
            return count + 1, carry, outputs

        _, carry, outputs = tf.while_loop(
            lambda count, *_: count < length,
            body,
            (0, list(carry), outputs),
            maximum_iterations=length,
        )
        return carry, [array.stack() for array in outputs]

    def is_concrete(x):
        """See the module."""
        return not tf.is_tensor(x) or hasattr(x, "numpy")

elif NAME == "jax":
    import jax

    def gradient(function, arguments):
        """See the module."""
        return jax.grad(function)(list(arguments))

    def custom_gradient(forward, backward):
        """See the module."""

        @jax.custom_vjp
        def function(*arguments):
            return forward(*arguments)[0]

        function.defvjp(forward, lambda *pair: tuple(backward(*pair)))
        return function

    def scan(step, carry, inputs, length, reverse=False):
        """See the module."""
        return jax.lax.scan(step, list(carry), list(inputs), length, reverse)

    def is_concrete(x):
        """See the module."""
        return not isinstance(x, jax.core.Tracer)

elif NAME == "torch":
    import torch

    def gradient(function, arguments):
        """See the module."""
        return torch.func.grad(function)(list(arguments))

    def custom_gradient(forward, backward):
        """See the module."""

        class Function(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *arguments):
                outputs, ctx.residuals = forward(*arguments)
                return tuple(outputs)

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx, *cotangents):
                return tuple(backward(ctx.residuals, cotangents))

        return Function.apply

    def scan(step, carry, inputs, length, reverse=False):
        """See the module."""
        outputs = [None] * length
        for index in reversed(range(length)) if reverse else range(length):
            carry, outputs[index] = step(carry, [x[index] for x in inputs])
        return carry, [torch.stack(ys) for ys in zip(*outputs, strict=True)]

    def is_concrete(x):
        """See the module."""
        return not torch.is_tensor(x) or x.device.type != "meta"

else:
    raise ImportError(
        f"keras_mnm runs on the Keras backends tensorflow, jax and torch; received {NAME!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before importing keras."
    )
