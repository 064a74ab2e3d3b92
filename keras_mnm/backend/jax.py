"""`keras_mnm.backend` on JAX."""

import contextlib

import jax
from keras import ops

from keras_mnm.backend.common import OFFERED

__all__ = OFFERED


def gradient(function, arguments):
    return jax.grad(function)(list(arguments))


def value_and_gradient(function, arguments):
    return jax.value_and_grad(function, has_aux=True)(list(arguments))


compile = jax.jit


def compiled_step(optimizer, variables):
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
    graph = jax.jit(function)

    def run(*arguments):
        # Within another one it would be a call of its own, which takes longer.
        eager = all(map(is_concrete, jax.tree.leaves(arguments)))
        return (graph if eager else function)(*arguments)

    return run


def custom_gradient(forward, backward):
    @jax.custom_vjp
    def function(*arguments):
        return forward(*arguments)[0]

    function.defvjp(forward, lambda *pair: tuple(backward(*pair)))
    return function


def scan(step, carry, inputs, length, reverse=False):
    return jax.lax.scan(step, carry, inputs, length, reverse)


put = slice_update = ops.slice_update
portable_ops = contextlib.nullcontext


def no_gradient(function):
    return function


def is_concrete(x):
    return not isinstance(x, jax.core.Tracer)


def accelerator():
    device = ops.zeros(()).device
    return None if device.platform == "cpu" else device.device_kind
