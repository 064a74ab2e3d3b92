"""`keras_mnm.backend` on TensorFlow."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import random

import numpy as np
import tensorflow as tf
from keras import ops, tree

from keras_mnm.backend.common import OFFERED, python_scan, refuse

__all__ = [*OFFERED, "batches_of_any_shape", "for_each_shape"]


def gradient(function, arguments):
    return value_and_gradient(lambda values: (function(values), None), arguments)[1]


def value_and_gradient(function, arguments):
    arguments = [tf.convert_to_tensor(argument) for argument in arguments]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(arguments)
        value, more = function(arguments)
    zero = tf.UnconnectedGradients.ZERO
    return (value, more), tape.gradient(value, arguments, unconnected_gradients=zero)


def compile(function):
    return tf.function(function, jit_compile=True, autograph=False)


def compiled_step(optimizer, variables):
    return compile(lambda gradients: optimizer.apply(gradients, variables))


def traced_once(function):
    # TensorFlow counts traces by a function's code, which others share; a partial has none.
    graph = tf.function(functools.partial(function), autograph=False)
    return lambda *args: (graph if tf.executing_eagerly() else function)(*args)


def custom_gradient(forward, backward):
    @tf.custom_gradient
    def function(*arguments):
        # No tape need follow what happens within, and `backward` depends on nothing else.
        outputs, residuals = forward(*map(tf.stop_gradient, arguments))
        residuals = tree.map_structure(tf.stop_gradient, residuals)

        @tf.custom_gradient
        def pull_back(*arguments_and_cotangents):
            cotangents = map(tf.stop_gradient, arguments_and_cotangents[len(arguments) :])
            return backward(residuals, list(cotangents)), refuse

        return outputs, lambda *cotangents: pull_back(*arguments, *cotangents)

    # A tf.Variable among the arguments would need a gradient of its own.
    return lambda *arguments: function(*map(tf.convert_to_tensor, arguments))


def scan(step, carry, inputs, length, reverse=False):
    carry, inputs = tree.map_structure(tf.convert_to_tensor, (carry, inputs))
    # A loop in a graph would have to be traced, which keeps what it traced, at every call.
    if length == 1 or tf.executing_eagerly():
        return python_scan(step, carry, inputs, length, reverse)
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
    return _update(_slice_update, inputs, start, updates)


def put(inputs, start, updates):
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
    global _portable
    _portable = True
    try:
        yield
    finally:
        _portable = False


def no_gradient(function):
    return function


def is_concrete(x):
    return not tf.is_tensor(x) or hasattr(x, "numpy")


def accelerator():
    kind, index = ops.zeros(()).device.split(":")[-2:]
    if kind == "CPU":
        return None
    device = tf.config.get_visible_devices(kind)[int(index)]
    return tf.config.experimental.get_device_details(device).get("device_name", kind)


def batches_of_any_shape(data, shuffle):
    count = data.num_batches  # None: without end

    def batch(index):
        return tree.lists_to_tuples(data[index])

    def batches():
        indices = itertools.count() if count is None else list(range(count))
        if shuffle and count is not None:
            random.shuffle(indices)
        if data.workers <= 1:
            yield from map(batch, indices)
            return
        with concurrent.futures.ThreadPoolExecutor(data.workers) as pool:
            ahead = collections.deque()
            for index in indices:
                ahead.append(pool.submit(batch, index))
                if len(ahead) > data.max_queue_size:
                    yield ahead.popleft().result()
            yield from (future.result() for future in ahead)

    # Left to itself, Keras takes the shape of the first two batches for that of all.
    specs = tree.map_structure(
        lambda x: tf.TensorSpec([None] * np.ndim(x), np.asarray(x).dtype), batch(0)
    )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=specs)
    if count is None:
        return dataset
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def for_each_shape(step, jit_compile):
    by_shapes = {}

    def step_of_these_shapes(batch):
        shapes = str([getattr(x, "shape", None) for x in tree.flatten(batch)])
        if shapes not in by_shapes:
            # A partial each, see `traced_once`: TensorFlow warns of code that is traced often.
            by_shapes[shapes] = tf.function(
                functools.partial(step), jit_compile=jit_compile, autograph=False
            )
        return by_shapes[shapes](batch)

    return step_of_these_shapes
