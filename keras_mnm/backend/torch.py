"""`keras_mnm.backend` on torch."""

import contextlib

import torch
from keras import ops, tree

from keras_mnm.backend.common import OFFERED, python_scan, refuse

__all__ = OFFERED


def gradient(function, arguments):
    return torch.func.grad(function)(list(arguments))


def value_and_gradient(function, arguments):
    arguments = [argument.detach().requires_grad_() for argument in arguments]
    value, more = function(arguments)
    gradients = torch.autograd.grad(value, arguments, allow_unused=True)
    pairs = zip(arguments, gradients, strict=True)
    return (value, more), [torch.zeros_like(a) if g is None else g for a, g in pairs]


def compile(function):
    return function


def compiled_step(optimizer, variables):
    return lambda gradients: optimizer.apply(gradients, variables)


def traced_once(function):
    return function


def custom_gradient(forward, backward):
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

        backward = staticmethod(refuse)

    return Function.apply


def scan(step, carry, inputs, length, reverse=False):
    return python_scan(step, carry, inputs, length, reverse)


put = slice_update = ops.slice_update
portable_ops = contextlib.nullcontext
no_gradient = torch.no_grad()


def is_concrete(x):
    return not torch.is_tensor(x) or x.device.type != "meta"


def accelerator():
    device = ops.zeros(()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return None if device.type == "cpu" else device.type
