"""Everything that differs between TensorFlow, JAX and torch lives here.

- `gradient(function, arguments)`: the gradient of a scalar function, differentiable again.
- `value_and_gradient(function, arguments)`: what a function returns, `(value, more)`, and the
  gradient of the value.
- `compile(function)`: the function compiled by XLA, for nests of tensors (torch: as it is).
- `compiled_step(optimizer, variables)`: a function of gradients that takes the optimizer's step,
  compiled likewise.
- `custom_gradient(forward, backward)`: a function of tensors with a derivative of its own.
  `forward(*arguments)` returns a list of outputs and a list of residuals;
  `backward(residuals, cotangents)` returns one cotangent for each argument. To differentiate that,
  or to ask for forward mode, is an error on TensorFlow and torch.
- `traced_once(function)`: the function of nests of tensors; called eagerly on TensorFlow, as a
  graph that is traced once for each shape.
- `scan(step, carry, inputs, length, reverse=False)`: a loop over the first axis of `inputs`;
  `step(carry, input)` returns the new carry and an output. All are nests of tensors.
- `slice_update(inputs, start, updates)`: `keras.ops.slice_update` along the second axis,
  differentiable everywhere.
- `put(inputs, start, updates)`: the same where nothing is differentiated.
- `portable_ops()`: a context in which what is traced has only operations that other runtimes know.
- `is_concrete(x)`: whether the numbers in `x` can be read now (no tracing under way).
- `accelerator()`: the name of the GPU or the like that new tensors are on, or None.
- `ONE_TRACE_FOR_ALL_SHAPES`: whether Keras traces a step once, of unknown sizes, for batches that
  differ in shape; where that is so, there are also
- `batches_of_any_shape(data, shuffle)`: a `PyDataset` as a data set for `fit`, with all sizes
  open, and
- `for_each_shape(step, jit_compile)`: a model's step, traced anew for every shape.
- `TRACED_STEP_HIDES_STATE`: whether the logs of a training step are computed without access to
  the layers' weights.
"""

import contextlib
import functools
import itertools
import random

import keras
import numpy as np
from keras import ops, tree

NAME = keras.backend.backend()
TRACED_STEP_HIDES_STATE = NAME == "jax"
ONE_TRACE_FOR_ALL_SHAPES = NAME == "tensorflow"


def _refuse(*_):
    raise ValueError(
        f"On {NAME} the fused form of a keras_mnm layer can be differentiated once, in reverse; "
        "for more pass unroll=True to the layer, which then runs the plain loop. Where no more is "
        "wanted, pass the gradients that a compiled function returns through "
        "keras.ops.stop_gradient."
    )


def _python_scan(step, carry, inputs, length, reverse):
    outputs = [None] * length
    for index in reversed(range(length)) if reverse else range(length):
        now = tree.map_structure(lambda x, index=index: x[index], inputs)
        carry, outputs[index] = step(carry, now)
    return carry, tree.map_structure(lambda *ys: ops.stack(ys), *outputs)


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

    def value_and_gradient(function, arguments):
        """See the module."""
        arguments = [tf.convert_to_tensor(argument) for argument in arguments]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arguments)
            value, more = function(arguments)
        zero = tf.UnconnectedGradients.ZERO
        return (value, more), tape.gradient(value, arguments, unconnected_gradients=zero)

    def compile(function):
        """See the module."""
        return tf.function(function, jit_compile=True, autograph=False)

    def compiled_step(optimizer, variables):
        """See the module."""
        return compile(lambda gradients: optimizer.apply(gradients, variables))

    def traced_once(function):
        """See the module."""
        # TensorFlow counts traces by a function's code, which others share; a partial has none.
        graph = tf.function(functools.partial(function), autograph=False)
        return lambda *args: (graph if tf.executing_eagerly() else function)(*args)

    def custom_gradient(forward, backward):
        """See the module."""

        @tf.custom_gradient
        def function(*arguments):
            # No tape need follow what happens within, and `backward` depends on nothing else.
            outputs, residuals = forward(*map(tf.stop_gradient, arguments))
            residuals = tree.map_structure(tf.stop_gradient, residuals)

            @tf.custom_gradient
            def pull_back(*arguments_and_cotangents):
                cotangents = map(tf.stop_gradient, arguments_and_cotangents[len(arguments) :])
                return backward(residuals, list(cotangents)), _refuse

            return outputs, lambda *cotangents: pull_back(*arguments, *cotangents)

        # A tf.Variable among the arguments would need a gradient of its own.
        return lambda *arguments: function(*map(tf.convert_to_tensor, arguments))

    def scan(step, carry, inputs, length, reverse=False):
        """See the module."""
        carry, inputs = tree.map_structure(tf.convert_to_tensor, (carry, inputs))
        # A loop in a graph would have to be traced, which keeps what it traced, at every call.
        if length == 1 or tf.executing_eagerly():
            return _python_scan(step, carry, inputs, length, reverse)
        flat_carry, flat_inputs = tree.flatten(carry), tree.flatten(inputs)

        def flat_step(*tensors):
            return step(*tree.pack_sequence_as((carry, inputs), tensors))

        # Traced once, here, for the loop must know what a step returns before it begins.
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in flat_carry]
        specs += [tf.TensorSpec(x.shape[1:], x.dtype) for x in flat_inputs]
        traced = tf.function(flat_step, autograph=False).get_concrete_function(*specs)
        _, example = traced.structured_outputs
        outputs = [
            tf.TensorArray(y.dtype, length, element_shape=y.shape) for y in tree.flatten(example)
        ]

        def body(count, flat_carry, outputs):
            index = length - 1 - count if reverse else count
            new, ys = traced(*flat_carry, *[tf.gather(x, index) for x in flat_inputs])
            outputs = [
                array.write(index, y) for array, y in zip(outputs, tree.flatten(ys), strict=True)
            ]
            return count + 1, tree.flatten(new), outputs

        _, flat_carry, outputs = tf.while_loop(
            lambda count, *_: count < length,
            body,
            (0, flat_carry, outputs),
            maximum_iterations=length,
        )
        outputs = [array.stack() for array in outputs]
        return tree.pack_sequence_as(carry, flat_carry), tree.pack_sequence_as(example, outputs)

    @tf.custom_gradient
    def _slice_update(inputs, start, updates):
        def backward(d_outputs):
            d_updates = tf.slice(d_outputs, start, tf.shape(updates))
            d_inputs = _slice_update(d_outputs, start, tf.zeros_like(updates))
            return d_inputs, None, d_updates

        return ops.slice_update(inputs, start, updates), backward

    _portable = False

    def slice_update(inputs, start, updates):
        """See the module."""
        return _update(_slice_update, inputs, start, updates)

    def put(inputs, start, updates):
        """See the module."""
        # TensorFlow never lets go of a graph with a gradient of its own in it.
        return _update(ops.slice_update, inputs, start, updates)

    def _update(update, inputs, start, updates):
        if not _portable:
            return update(inputs, tf.stack(start), updates)
        end = start[1] + updates.shape[1]
        outputs = tf.concat([inputs[:, : start[1]], updates, inputs[:, end:]], axis=1)
        outputs.set_shape(inputs.shape)
        return outputs

    @contextlib.contextmanager
    def portable_ops():
        """See the module."""
        global _portable
        _portable = True
        try:
            yield
        finally:
            _portable = False

    def is_concrete(x):
        """See the module."""
        return not tf.is_tensor(x) or hasattr(x, "numpy")

    def accelerator():
        """See the module."""
        kind, index = ops.zeros(()).device.split(":")[-2:]
        if kind == "CPU":
            return None
        device = tf.config.get_visible_devices(kind)[int(index)]
        return tf.config.experimental.get_device_details(device).get("device_name", kind)

    def batches_of_any_shape(data, shuffle):
        """See the module."""
        count = data.num_batches  # None: without end

        def batch(index):
            return tree.lists_to_tuples(data[index])

        def batches():
            indices = itertools.count() if count is None else list(range(count))
            if shuffle and count is not None:
                random.shuffle(indices)
            yield from map(batch, indices)

        # Left to itself, Keras takes the shape of the first two batches for that of all.
        specs = tree.map_structure(
            lambda x: tf.TensorSpec([None] * np.ndim(x), np.asarray(x).dtype), batch(0)
        )
        dataset = tf.data.Dataset.from_generator(batches, output_signature=specs)
        if count is None:
            return dataset
        return dataset.apply(tf.data.experimental.assert_cardinality(count))

    def for_each_shape(step, jit_compile):
        """See the module."""
        by_shapes = {}  # a function each, for TensorFlow warns of one that is traced often

        def step_of_these_shapes(batch):
            shapes = str([getattr(x, "shape", None) for x in tree.flatten(batch)])
            if shapes not in by_shapes:
                by_shapes[shapes] = tf.function(step, jit_compile=jit_compile, autograph=False)
            return by_shapes[shapes](batch)

        return step_of_these_shapes

elif NAME == "jax":
    import jax

    def gradient(function, arguments):
        """See the module."""
        return jax.grad(function)(list(arguments))

    def value_and_gradient(function, arguments):
        """See the module."""
        return jax.value_and_grad(function, has_aux=True)(list(arguments))

    compile = jax.jit

    def compiled_step(optimizer, variables):
        """See the module."""
        stateless = compile(optimizer.stateless_apply)

        def step(gradients):
            both = list(optimizer.variables), variables
            state, values = ([variable.value for variable in some] for some in both)
            values, state = stateless(state, gradients, values)
            for some, new in zip(both, (state, values), strict=True):
                for variable, value in zip(some, new, strict=True):
                    variable.assign(value)

        return step

    def traced_once(function):
        """See the module."""
        return function

    def custom_gradient(forward, backward):
        """See the module."""

        @jax.custom_vjp
        def function(*arguments):
            return forward(*arguments)[0]

        function.defvjp(forward, lambda *pair: tuple(backward(*pair)))
        return function

    def scan(step, carry, inputs, length, reverse=False):
        """See the module."""
        return jax.lax.scan(step, carry, inputs, length, reverse)

    put = slice_update = ops.slice_update
    portable_ops = contextlib.nullcontext

    def is_concrete(x):
        """See the module."""
        return not isinstance(x, jax.core.Tracer)

    def accelerator():
        """See the module."""
        device = ops.zeros(()).device
        return None if device.platform == "cpu" else device.device_kind

elif NAME == "torch":
    import torch

    def gradient(function, arguments):
        """See the module."""
        return torch.func.grad(function)(list(arguments))

    def value_and_gradient(function, arguments):
        """See the module."""
        arguments = [argument.detach().requires_grad_() for argument in arguments]
        value, more = function(arguments)
        gradients = torch.autograd.grad(value, arguments, allow_unused=True)
        pairs = zip(arguments, gradients, strict=True)
        return (value, more), [torch.zeros_like(a) if g is None else g for a, g in pairs]

    def compile(function):
        """See the module."""
        return function

    def compiled_step(optimizer, variables):
        """See the module."""
        return lambda gradients: optimizer.apply(gradients, variables)

    def traced_once(function):
        """See the module."""
        return function

    def custom_gradient(forward, backward):
        """See the module."""

        class Function(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *arguments):
                outputs, residuals = forward(*arguments)
                # Kept in any other way, those that are outputs, too, would keep themselves alive.
                ctx.save_for_backward(*tree.flatten(residuals))
                ctx.structure = tree.map_structure(lambda _: 0, residuals)
                return tuple(outputs)

            @staticmethod
            def backward(ctx, *cotangents):
                tensors = *ctx.saved_tensors, *cotangents
                return PullBack.apply(ctx.structure, len(ctx.saved_tensors), *tensors)

        class PullBack(torch.autograd.Function):
            @staticmethod
            def forward(ctx, structure, count, *tensors):
                residuals = tree.pack_sequence_as(structure, tensors[:count])
                return tuple(backward(residuals, tensors[count:]))

            backward = staticmethod(_refuse)

        return Function.apply

    def scan(step, carry, inputs, length, reverse=False):
        """See the module."""
        return _python_scan(step, carry, inputs, length, reverse)

    put = slice_update = ops.slice_update
    portable_ops = contextlib.nullcontext

    def is_concrete(x):
        """See the module."""
        return not torch.is_tensor(x) or x.device.type != "meta"

    def accelerator():
        """See the module."""
        device = ops.zeros(()).device
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        return None if device.type == "cpu" else device.type

else:
    raise ImportError(
        f"keras_mnm runs on the Keras backends tensorflow, jax and torch; received {NAME!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before importing keras."
    )
