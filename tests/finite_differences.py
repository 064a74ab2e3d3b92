"""Gradients by the backend and by central differences, for the same function."""

import keras
import numpy as np
from keras import ops


def gradients(loss, variables):
    """Gradients of `loss()` with respect to Keras variables, as NumPy arrays."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        found = tape.gradient(value, [v.value for v in variables])
        found = [tf.zeros_like(v.value) if g is None else g for g, v in zip(found, variables)]
    elif backend == "jax":
        import jax

        def stateless(values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return loss()

        found = jax.grad(stateless)([v.value for v in variables])
    else:
        import torch

        value = loss()
        found = torch.autograd.grad(value, [v.value for v in variables], allow_unused=True)
        found = [torch.zeros_like(v.value) if g is None else g for g, v in zip(found, variables)]
    return [np.asarray(ops.convert_to_numpy(gradient)) for gradient in found]


def directional(loss, variables, direction, epsilon=1e-5):
    """Slope of `loss()` along `direction`, by central differences."""
    start = [np.asarray(ops.convert_to_numpy(v)) for v in variables]
    values = []
    for sign in (1.0, -1.0):
        for variable, value, step in zip(variables, start, direction):
            variable.assign(value + sign * epsilon * step)
        values.append(float(ops.convert_to_numpy(loss())))
    for variable, value in zip(variables, start):
        variable.assign(value)
    return (values[0] - values[1]) / (2 * epsilon)


def check_gradients(loss, variables, rng, tolerance=1e-7):
    """Compares along one random direction for each variable, so that none can hide."""
    found = gradients(loss, variables)
    for index, variable in enumerate(variables):
        direction = [np.zeros(v.shape) for v in variables]
        direction[index] = rng.standard_normal(variable.shape)
        expected = directional(loss, variables, direction)
        slope = float(np.sum(found[index] * direction[index]))
        assert abs(slope - expected) <= tolerance * max(1.0, abs(expected)), (
            f"{variable.path}: gradient {slope}, finite differences {expected}"
        )
