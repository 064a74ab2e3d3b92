"""The two write rules within a chunk: the write and the reads of one step, and the way back."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_mnm.sequence.low_rank import LowRank, put, rows_before, transpose


class Sigma(NamedTuple):
    """An activation with its derivatives as functions of its value `z`."""

    value: object
    slope: object
    curvature: object
    """The derivative of `slope(z)` by `z`."""


SIGMAS = {
    "tanh": Sigma(ops.tanh, lambda z: 1.0 - z * z, lambda z: -2.0 * z),
    "sigmoid": Sigma(ops.sigmoid, lambda z: z * (1.0 - z), lambda z: 1.0 - 2.0 * z),
    "linear": Sigma(lambda a: a, ops.ones_like, ops.zeros_like),
}
"""The activations that the fused form knows."""


class Step(NamedTuple):
    """A step as the way back finds it. Lists have an entry for each memory layer."""

    index: object
    values: object  # [B, H, D]
    scales: list  # η β^l, 0 at masked steps, [B, 1, 1]
    written: list  # z^0..z^L of the write keys under the memory before the write, [B, H, D]
    recalled: list  # z^1..z^L of [write keys; read keys] under the memory after it, [B, 2 H, D]
    errors: list  # Δ^1..Δ^L, [B, H, D]
    unsloped: list  # gradient rule: Δ^{l+1} M^{l+1}ᵀ, l = 1..L-1
    later: list  # of `Later`


class Later(NamedTuple):
    """What a step needs to know of the adjoint `dM_t` of a layer after it.

    `dM_t = dM_C + Σ_{s>t} p_sᵀ q_s`. The 3 H rows `p` of a step are what the layer was given at it:
    the write keys' activations before the write, then those of write and read keys after it. They
    are known beforehand; the `q`, adjoints of what the layer gave back, are not.
    The gradient rule adds `Σ_{s>t} g_sᵀ Δ_s`, from the backpropagation of the errors `Δ_s`.
    """

    from_key: object  # k dM_C, [B, H, D]
    from_error: object  # e dM_Cᵀ, [B, H, D]
    key_products: object  # k Pᵀ, [B, H, 3 C H]
    error: object  # e, [B, H, D]


class Past(NamedTuple):
    """A layer after its chunk, the same for all steps of the way back."""

    memory: LowRank
    transposed: object  # M_0ᵀ
    given: object  # P, [B, 3 C H, D]
    errors: object  # Δ, not scaled, [B, C H, D]


class Adjoints(NamedTuple):
    """The adjoints of what `write_and_recall` was given."""

    write_keys: object
    read_keys: object
    values: object
    scales: list  # [B] for each layer
    expected: list  # of ẑ^1..ẑ^L; empty under the gradient rule


class Rule:
    """What both rules share, for chunks of `length` steps."""

    def __init__(self, spec, depth, length):
        self.heads = spec.num_heads
        self.depth = depth
        self.length = length
        hidden, last = SIGMAS[spec.activation], SIGMAS[spec.output_activation]
        self.sigmas = [hidden] * (depth - 1) + [last]

    def buffers(self, past):
        """What `pull_back` carries from later steps to earlier ones: the `q`."""
        return [ops.zeros_like(layer.given) for layer in past]

    def d_matrices(self, past, buffers):
        """What a chunk adds to the adjoints of the matrices."""
        return [transpose(layer.given) @ q for layer, q in zip(past, buffers, strict=True)]

    def _before(self, step, dtype):
        """Masks the rows of `K`, `E` that were written before `step`."""
        return rows_before(step, self.length, self.heads, dtype)

    def _put_q(self, q, step, block, new):
        """Puts `new` among the rows of `step`, after `block` times H others."""
        return put(q, (3 * step + block) * self.heads, new)

    def _d_scaled(self, q, later):
        """The adjoint of the scaled error `e` of `M_t = M_{t-1} - kᵀ e`, but for `g`."""
        return -(later.from_key + later.key_products @ q)

    def _d_key(self, q, step, later, past):
        """That of the key, with the step's first H rows of `q`, of before the write, left out."""
        after_write = 1.0 - rows_before(3 * step + 1, 3 * self.length, self.heads, q.dtype)
        return -(later.from_error + (later.error @ transpose(q) * after_write) @ past.given)


class LocalRule(Rule):
    """Eq. 4 (MNM-p): `M^l ← M^l - (z^{l-1})ᵀ (η β^l Δ^l)` with `Δ^l = z^l - ẑ^l`."""

    def errors(self, written, values, expected, unsloped):
        """`Δ^1..Δ^L`."""
        return [z - target for z, target in zip(written[1:], expected, strict=True)]

    def write_and_recall(self, index, write_keys, read_keys, values, expected, scales, memory):
        """Returns the new memory and, as in `Step`: `written[-1]`, `recalled` and `unsloped`."""
        heads, row = self.heads, index * self.heads
        memory, recalled = list(memory), []
        old, new = write_keys, ops.concatenate([write_keys, read_keys], axis=1)
        for layer, sigma in enumerate(self.sigmas):
            part = memory[layer]
            keys = put(part.keys, row, old)
            given = ops.concatenate([old, new], axis=1)
            products, shares = given @ part.matrix, given @ transpose(keys)
            # The step's own error is not there for the first H rows; it is for the others.
            old = sigma.value(products[:, :heads] - shares[:, :heads] @ part.errors)
            error = scales[layer] * (old - expected[layer])
            errors = put(part.errors, row, error)
            new = sigma.value(products[:, heads:] - shares[:, heads:] @ errors)
            memory[layer] = LowRank(part.matrix, keys, errors)
            recalled.append(new)
        return memory, old, recalled, []

    def pull_back(self, step, past, buffers, d_new):
        """Takes the adjoint `d_new` of `recalled[-1]` back through a step.

        Returns `Adjoints` and the buffers.
        """
        heads, index = self.heads, step.index
        # One pass for both: [write keys before the write; write and read keys after it].
        after = np.array([[0]] * heads + [[1]] * (2 * heads), "int32")
        written = self._before(index + ops.convert_to_tensor(after), d_new.dtype)
        buffers, d_errors, d_scales = list(buffers), [], []
        d_old = ops.zeros_like(step.written[-1])
        for layer in reversed(range(self.depth)):
            sigma, later = self.sigmas[layer], step.later[layer]
            d_new = d_new * sigma.slope(step.recalled[layer])
            q = self._put_q(buffers[layer], index, 1, d_new)
            d_scaled = self._d_scaled(q, later)
            d_error = step.scales[layer] * d_scaled
            d_old = (d_old + d_error) * sigma.slope(step.written[layer + 1])
            q = self._put_q(q, index, 0, d_old)
            d_key = self._d_key(q, index, later, past[layer])
            d_given = past[layer].memory.times_transposed(
                ops.concatenate([d_old, d_new], axis=1), written, past[layer].transposed
            )
            d_old, d_new = d_key + d_given[:, :heads], d_given[:, heads:]
            buffers[layer] = q
            d_errors.insert(0, d_error)
            d_scales.insert(0, ops.sum(d_scaled * step.errors[layer], axis=(1, 2)))
        adjoints = Adjoints(
            write_keys=d_old + d_new[:, :heads],
            read_keys=d_new[:, heads:],
            values=ops.zeros_like(step.values),
            scales=d_scales,
            expected=[-d for d in d_errors],
        )
        return adjoints, buffers


class GradientRule(Rule):
    """Eqs. 2 and 3 (MNM-g): `Δ^L = (z^L - v) σ'`, and `Δ^l = (Δ^{l+1} M^{l+1}ᵀ) σ'` below."""

    def errors(self, written, values, expected, unsloped):
        """`Δ^1..Δ^L`."""
        back = [*unsloped, written[-1] - values]
        slopes = (sigma.slope(z) for sigma, z in zip(self.sigmas, written[1:], strict=True))
        return [error * slope for error, slope in zip(back, slopes, strict=True)]

    def write_and_recall(self, index, write_keys, read_keys, values, expected, scales, memory):
        """Returns the new memory and, as in `Step`: `written[-1]`, `recalled` and `unsloped`."""
        row, before = index * self.heads, self._before(index, values.dtype)
        memory, written = list(memory), [write_keys]
        for layer, sigma in enumerate(self.sigmas):
            memory[layer] = memory[layer]._replace(keys=put(memory[layer].keys, row, written[-1]))
            written.append(sigma.value(memory[layer].times(written[-1])))

        unsloped, back = [], written[-1] - values
        for layer in reversed(range(self.depth)):
            error = back * self.sigmas[layer].slope(written[layer + 1])
            memory[layer] = memory[layer]._replace(
                errors=put(memory[layer].errors, row, scales[layer] * error)
            )
            if layer:
                back = memory[layer].times_transposed(error, before)
                unsloped.insert(0, back)

        recalled = [ops.concatenate([write_keys, read_keys], axis=1)]
        for part, sigma in zip(memory, self.sigmas, strict=True):
            recalled.append(sigma.value(part.times(recalled[-1])))
        return memory, written[-1], recalled[1:], unsloped

    def buffers(self, past):
        """The `q`, then the `g`."""
        return super().buffers(past) + [ops.zeros_like(layer.errors) for layer in past[1:]]

    def pull_back(self, step, past, buffers, d_new):
        """Takes the adjoint `d_new` of `recalled[-1]` back through a step.

        Returns `Adjoints` and the buffers.
        """
        heads, depth, index, dtype = self.heads, self.depth, step.index, d_new.dtype
        before, until = self._before(index, dtype), self._before(index + 1, dtype)
        after = 1.0 - until
        q, g = list(buffers[:depth]), [None, *buffers[depth:]]
        slopes = [s.slope(z) for s, z in zip(self.sigmas, step.written[1:], strict=True)]
        curvatures = [s.curvature(z) for s, z in zip(self.sigmas, step.written[1:], strict=True)]

        # The reads, from the new memory.
        for layer in reversed(range(depth)):
            d_new = d_new * self.sigmas[layer].slope(step.recalled[layer])
            q[layer] = self._put_q(q[layer], index, 1, d_new)
            d_new = past[layer].memory.times_transposed(d_new, until, past[layer].transposed)

        # The errors, which came down through the layers: their adjoints go up.
        d_errors, d_scales = [], []
        for layer in range(depth):
            d_scaled, d_back = self._d_scaled(q[layer], step.later[layer]), 0.0
            if layer:
                d_unsloped = d_errors[-1] * slopes[layer - 1]
                g[layer] = put(g[layer], index * heads, d_unsloped)
                products = step.written[layer] @ transpose(g[layer]) * after
                d_scaled = d_scaled - products @ past[layer].errors
                d_back = past[layer].memory.times(d_unsloped, before)
            d_errors.append(step.scales[layer] * d_scaled + d_back)
            d_scales.append(ops.sum(d_scaled * step.errors[layer], axis=(1, 2)))

        # The write keys' activations, from the memory before the write.
        d_values = -d_errors[-1] * slopes[-1]
        back = [*step.unsloped, step.written[-1] - step.values]
        d_old = -d_values
        for layer in reversed(range(depth)):
            later = step.later[layer]
            d_old = (d_old + d_errors[layer] * back[layer] * curvatures[layer]) * slopes[layer]
            q[layer] = self._put_q(q[layer], index, 0, d_old)
            d_key = self._d_key(q[layer], index, later, past[layer])
            if layer:
                products = later.error @ transpose(past[layer].errors) * after
                d_key = d_key - products @ g[layer]
            d_old = d_key + past[layer].memory.times_transposed(
                d_old, before, past[layer].transposed
            )
        adjoints = Adjoints(
            write_keys=d_old + d_new[:, :heads],
            read_keys=d_new[:, heads:],
            values=d_values,
            scales=d_scales,
            expected=[],
        )
        return adjoints, [*q, *g[1:]]

    def d_matrices(self, past, buffers):
        """What a chunk adds to the adjoints of the matrices."""
        sums = super().d_matrices(past, buffers[: self.depth])
        for layer, g in enumerate(buffers[self.depth :], start=1):
            sums[layer] = sums[layer] + transpose(g) @ past[layer].errors
        return sums


RULES = {"local": LocalRule, "gradient": GradientRule}
