"""The fused sequence form of MNM: a whole sequence as one function with one custom gradient.

It computes what a loop over `MNMCell` with an LSTM controller computes, to rounding, in less time
(`benchmarks/results/train_step-tensorflow.json`). Four ideas make the difference:

1. *Low rank.* A write takes `Kᵀ E` from a memory layer: `M_t = M_0 - Σ_s k_sᵀ e_s`, where `k_s` are
   the activations below the layer and `e_s` the scaled errors above it. Within a chunk of `C`
   steps the memory is never formed: `z M_t = z M_0 - (z Kᵀ) E`. Once a chunk, `M_0` takes up the
   sum as one product.
2. *Nothing is stored but vectors.* The backward pass has `M_0` of each chunk and the chunk's `K`
   and `E`; the gates and interaction vectors of a chunk are computed again, all steps at once.
3. *The adjoint has low rank, too.* `dM_t = dM_C + Σ_{s>t} p_sᵀ q_s`, and the `p_s` are known
   beforehand, so that what the loop needs of `dM_C` is one product a chunk.
4. *Weights* get their gradients as one product over the steps of a chunk.

Shapes: `T` steps in `N` chunks of `C`, `B` samples, `H` heads, `D` memory units, `L` memory layers,
`U` controller units. Vectors of a chunk that meet a memory are `[B, C H, D]`, time and heads
joined; the others are time-major, `[C, B, ...]`.
"""

from typing import NamedTuple

from keras import ops

from keras_mnm import backend
from keras_mnm import ops as mnm_ops


class Spec(NamedTuple):
    """What is fixed about a sequence run."""

    num_heads: int
    write_rule: str
    step_size: float
    activation: str
    output_activation: str


class Weights(NamedTuple):
    """The trained weights that meet the state; `feedback` is empty under the gradient rule."""

    recurrent: object  # [U + D, 4 U], from [h; v^r] to the gates
    interaction: object  # [U, (3 H + 1) D]
    interaction_bias: object
    rate: object  # [D, 1] or [D, L]
    rate_bias: object
    feedback: tuple = ()  # kernel [D, L D] and bias


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


def chunk_length(steps):
    """A chunk of about 16 steps that leaves the fewest padded ones."""
    if steps <= 24:
        return steps
    return min(range(12, 25), key=lambda c: (-steps % c, abs(c - 16)))


def run(x_gates, mask, state, weights, spec):
    """Runs a sequence.

    Args:
        x_gates: `[T, B, 4 U]`, what the inputs and the bias add to the controller's gates.
        mask: `[T, B, 1]`, 1 at the steps that count and 0 at the masked ones.
        state: `h`, `c` (`[B, U]`), read-out (`[B, D]`), and the memory's `L` matrices `[B, D, D]`.
        weights: `Weights`.
        spec: `Spec`.

    Returns:
        Hidden states `[T, B, U]`, read-outs `[T, B, D]`, the sum over steps of the recall error
        (Eq. 5, τ = 0) `[B]`, and the final state in the form of `state`.
    """
    steps, length = x_gates.shape[0], chunk_length(x_gates.shape[0])
    x_gates, mask = _in_chunks(x_gates, length), _in_chunks(mask, length)
    sequence = _Sequence(spec, depth=len(state) - 3, length=length)
    function = backend.custom_gradient(sequence.forward, sequence.backward)
    hidden, readout, error, *final = function(
        x_gates, mask, *state, *weights[:5], *weights.feedback
    )

    def whole(x):
        return ops.reshape(x, (x.shape[0] * length, -1, x.shape[-1]))[:steps]

    return whole(hidden), whole(readout), error, final


def _in_chunks(x, length):
    """`[T, B, n]` to `[N, C, B, n]`, with zeros after the end: masked steps."""
    padding = -x.shape[0] % length
    if padding:
        x = ops.pad(x, [(0, padding), (0, 0), (0, 0)])
    return ops.reshape(x, (x.shape[0] // length, length, -1, x.shape[-1]))


class _Sequence:
    """Forward and backward pass for a given `Spec`, depth `L` and chunk length `C`."""

    def __init__(self, spec, depth, length):
        self.spec = spec
        self.depth = depth
        self.length = length
        hidden, last = SIGMAS[spec.activation], SIGMAS[spec.output_activation]
        self.sigmas = [hidden] * (depth - 1) + [last]

    # Forward

    def forward(self, x_gates, mask, h, c, readout, *rest):
        """Outputs of `run`, and what the backward pass needs."""
        matrices, weights = self._unpack(rest)

        def chunk(carry, inputs):
            h, c, readout, error, *matrices = carry
            state, factors, records = self._chunk_forward(
                *inputs, (h, c, readout, error), matrices, weights
            )
            written = [
                matrix - _transpose(keys) @ errors
                for matrix, (keys, errors) in zip(matrices, factors, strict=True)
            ]
            keys = [keys for keys, _ in factors]
            return [*state, *written], [h, c, readout, *matrices, *keys, *records]

        carry = [h, c, readout, ops.zeros_like(h[:, 0]), *matrices]
        carry, kept = backend.scan(chunk, carry, [x_gates, mask], x_gates.shape[0])
        final_h, final_c, final_readout, error, *final = carry
        records = kept[3 + 2 * self.depth :]
        outputs = [records[0], records[2], error, final_h, final_c, final_readout, *final]
        return outputs, [x_gates, mask, *rest[self.depth :], *kept]

    def _chunk_forward(self, x_gates, mask, state, matrices, weights):
        """All steps of a chunk.

        Returns:
            The state after it; for each layer the factors `K`, `E` of what it wrote, both
            `[B, C H, D]`; and the records of each step, time-major: hidden, cell and read-out
            states, the write keys' last activation, the activations of `[write keys; read keys]`
            under the new memory layer by layer, and (gradient rule) the backpropagated errors
            before the slope.
        """
        heads, depth = self.spec.num_heads, self.depth
        batch, units = ops.shape(matrices[0])[0], matrices[0].shape[-1]
        empty = ops.zeros((batch, self.length * heads, units), matrices[0].dtype)

        def step(carry, inputs):
            h, c, readout, error, *factors = carry
            x, m, index = inputs
            keep = m > 0
            memory = [
                _LowRank(matrix, keys, errors)
                for matrix, keys, errors in zip(
                    matrices, factors[:depth], factors[depth:], strict=True
                )
            ]
            gates = x + ops.concatenate([h, readout], axis=-1) @ weights.recurrent
            h_new, c_new, _ = _lstm(gates, c)
            read_keys, write_keys, values, rates = self._interact(h_new, weights)

            written = self._activations(write_keys, memory)
            errors, unsloped = self._write_errors(written, values, weights, memory)
            row = index * heads
            for layer in range(depth):
                scale = self._scale(m, rates, layer)
                memory[layer] = memory[layer].append(row, written[layer], scale * errors[layer])
            keys = ops.concatenate([write_keys, read_keys], axis=1)
            recalled = self._activations(keys, memory)

            readout_new = ops.mean(recalled[-1][:, heads:], axis=1)
            miss = mnm_ops.squared_error(recalled[-1][:, :heads], values)
            h, c = ops.where(keep, h_new, h), ops.where(keep, c_new, c)
            readout = ops.where(keep, readout_new, readout)
            error = error + m[:, 0] * miss
            factors = [part.keys for part in memory] + [part.errors for part in memory]
            records = [h, c, readout, written[-1], *recalled[1:], *unsloped]
            return [h, c, readout, error, *factors], records

        carry = [*state, *[empty] * (2 * depth)]
        inputs = [x_gates, mask, ops.arange(self.length)]
        carry, records = backend.scan(step, carry, inputs, self.length)
        factors = list(zip(carry[4 : 4 + depth], carry[4 + depth :], strict=True))
        return carry[:4], factors, records

    def _interact(self, h, weights):
        """Eq. 1 and the rates, for `h` of shape `[B, U]`."""
        projection = h @ weights.interaction + weights.interaction_bias
        read_keys, write_keys, values, rate_vector = mnm_ops.interaction_vectors(
            projection, self.spec.num_heads
        )
        rates = ops.sigmoid(rate_vector @ weights.rate + weights.rate_bias)
        return read_keys, write_keys, values, rates

    def _scale(self, mask, rates, layer):
        """`η β^l` at steps that count, else 0; `[..., 1, 1]`."""
        rate = rates[..., layer % rates.shape[-1], None]
        return (self.spec.step_size * mask * rate)[..., None]

    def _activations(self, keys, memory):
        """`[z^0, ..., z^L]`."""
        activations = [keys]
        for part, sigma in zip(memory, self.sigmas, strict=True):
            activations.append(sigma.value(part.times(activations[-1])))
        return activations

    def _write_errors(self, written, values, weights, memory):
        """The errors `Δ^1..Δ^L` that a write takes away: `M^l ← M^l - η β^l (z^{l-1})ᵀ Δ^l`.

        Local rule (Eq. 4): `Δ^l = z^l - ẑ^l`. Gradient rule (Eq. 3): `Δ^L = (z^L - v) σ'`, and
        `Δ^l = (Δ^{l+1} M^{l+1}ᵀ) σ'`, whose products before the slope are returned, too.
        """
        if self.spec.write_rule == "local":
            expected = self._expected(values, weights)
            return [z - e for z, e in zip(written[1:], expected, strict=True)], []
        errors = [(written[-1] - values) * self.sigmas[-1].slope(written[-1])]
        unsloped = []
        for layer in reversed(range(1, self.depth)):
            unsloped.insert(0, memory[layer].times_transposed(errors[0]))
            errors.insert(0, unsloped[0] * self.sigmas[layer - 1].slope(written[layer]))
        return errors, unsloped

    def _expected(self, values, weights):
        """`ẑ^1..ẑ^L` of the feedback prediction functions, for values `[..., H, D]`."""
        kernel, bias = weights.feedback
        predictions = _dense(values, kernel) + bias
        return ops.split(predictions, self.depth, axis=-1)

    # Backward

    def backward(self, residuals, cotangents):
        """Cotangents of the arguments of `forward`."""
        x_gates, mask, *residuals = residuals
        count = 5 + (2 if self.spec.write_rule == "local" else 0)
        weights, kept = Weights(*residuals[:5], tuple(residuals[5:count])), residuals[count:]
        d_hidden, d_readouts, d_error, *d_final = cotangents
        accumulators = [ops.zeros_like(w) for w in residuals[:count]]

        def chunk(carry, inputs):
            x_gates, mask, d_hidden, d_readouts, *kept = inputs
            d_state, d_matrices = carry[:3], carry[3 : 3 + self.depth]
            record = self._recompute(x_gates, mask, kept, weights)
            d_state, d_matrices, d_gates, d_weights = self._chunk_backward(
                record, d_hidden, d_readouts, d_error, d_state, d_matrices, weights
            )
            sums = [a + d for a, d in zip(carry[3 + self.depth :], d_weights, strict=True)]
            return [*d_state, *d_matrices, *sums], [d_gates]

        carry, (d_x_gates,) = backend.scan(
            chunk,
            [*d_final, *accumulators],
            [x_gates, mask, d_hidden, d_readouts, *kept],
            x_gates.shape[0],
            reverse=True,
        )
        return [d_x_gates, ops.zeros_like(mask), *carry]

    def _recompute(self, x_gates, mask, kept, weights):
        """Everything about a chunk's steps that no loop is needed for."""
        heads, depth = self.spec.num_heads, self.depth
        start, matrices, keys = kept[:3], kept[3 : 3 + depth], kept[3 + depth : 3 + 2 * depth]
        hidden, cells, readouts, last, *others = kept[3 + 2 * depth :]
        recalled, unsloped = others[:depth], others[depth:]

        def before(first, values):
            return ops.concatenate([first[None], values[:-1]], axis=0)

        h, c, r = (before(*pair) for pair in zip(start, (hidden, cells, readouts), strict=True))
        hr = ops.concatenate([h, r], axis=-1)
        h_new, _, gates = _lstm(x_gates + _dense(hr, weights.recurrent), c)
        vectors = ops.tanh(_dense(h_new, weights.interaction) + weights.interaction_bias)
        vectors = ops.reshape(vectors, (self.length, -1, 3 * heads + 1, last.shape[-1]))
        rates = ops.sigmoid(_dense(vectors[:, :, -1], weights.rate) + weights.rate_bias)
        values = vectors[:, :, 2 * heads : 3 * heads]

        written = [self._by_step(k) for k in keys] + [last]
        if self.spec.write_rule == "local":
            expected = self._expected(values, weights)
            errors = [z - e for z, e in zip(written[1:], expected, strict=True)]
        else:
            errors = [(last - values) * self.sigmas[-1].slope(last)]
            for layer in reversed(range(1, depth)):
                slope = self.sigmas[layer - 1].slope(written[layer])
                errors.insert(0, unsloped[layer - 1] * slope)
        scales = [self._scale(mask, rates, layer) for layer in range(depth)]
        both = ops.concatenate([vectors[:, :, heads : 2 * heads], vectors[:, :, :heads]], axis=2)
        return _Record(
            mask=mask,
            hr=hr,
            c=c,
            h_new=h_new,
            gates=gates,
            vectors=vectors,
            rates=rates,
            scales=scales,
            values=values,
            written=written,
            recalled=[both, *recalled],
            errors=errors,
            unsloped=unsloped,
            keys=keys,
            scaled_errors=[self._joined(s * e) for s, e in zip(scales, errors, strict=True)],
            matrices=matrices,
        )

    def _chunk_backward(self, record, d_hidden, d_readouts, d_error, d_state, d_matrices, weights):
        """Walks back through a chunk.

        Returns:
            The adjoints of the state and of the matrices before the chunk, of `x_gates`, and of
            the weights.
        """
        heads, depth, length = self.spec.num_heads, self.depth, self.length
        local = self.spec.write_rule == "local"
        units = record.written[0].shape[-1]
        # dM after step t is d_matrix + Σ_{s>t} p_sᵀ q_s: the rows p are known, the q are not yet.
        # A step has 3 H rows: its reads under the new memory (2 H), then its write (H).
        rows = [
            self._joined(ops.concatenate([both, w], axis=2))
            for both, w in zip(record.recalled[:-1], record.written[:-1], strict=True)
        ]
        d_memory = [
            _LowRankAdjoint(
                from_keys=self._by_step(keys @ d_matrix),
                from_errors=self._by_step(errors @ _transpose(d_matrix)),
                grams=self._by_step(keys @ _transpose(p)),
            )
            for keys, errors, d_matrix, p in zip(
                record.keys, record.scaled_errors, d_matrices, rows, strict=True
            )
        ]
        # Under the gradient rule a step adds g_sᵀ Δ_s, from the backpropagation of the errors.
        joined_errors = [] if local else [self._joined(e) for e in record.errors]
        transposed = [_transpose(matrix) for matrix in record.matrices]
        step_of_row = ops.arange(length * heads) // heads
        inputs = [
            ops.arange(length),
            d_hidden,
            d_readouts,
            record.mask,
            record.c,
            *record.gates,
            record.vectors,
            record.rates,
            *record.scales,
            *record.written,
            *record.recalled[1:],
            *record.errors,
            *record.unsloped,
            *[self._by_step(e) for e in record.scaled_errors],
            *[part for adjoint in d_memory for part in adjoint],
        ]

        def step(carry, inputs):
            dh, dc, dr, *buffers = carry
            take = _Reader(inputs)
            index, dh_out, dr_out, m, c = take(5)
            gates, (vectors, rates), scales = take(5), take(2), take(depth)
            written, recalled = take(depth + 1), [None, *take(depth)]
            errors, unsloped = take(depth), take(0 if local else depth - 1)
            scaled, d_memory = take(depth), [_LowRankAdjoint(*take(3)) for _ in range(depth)]
            q = buffers[:depth]  # [B, C 3 H, D], zero at the steps before
            g = [None, *(buffers[depth:] or [None] * (depth - 1))]  # [B, C H, D], likewise

            def under(layer, x, until):
                """`x M_tᵀ`, with the writes of the steps for which `until` holds."""
                coefficients = x @ _transpose(record.scaled_errors[layer])
                coefficients = coefficients * ops.cast(until(step_of_row, index), x.dtype)
                return x @ transposed[layer] - coefficients @ record.keys[layer]

            dh, dr = dh + dh_out, dr + dr_out
            values = vectors[:, 2 * heads : 3 * heads]

            # v^r and the recall error, both read from the new memory.
            d_recall = (2.0 / (heads * units)) * (m * d_error[:, None])[:, :, None]
            d_recall = d_recall * (recalled[-1][:, :heads] - values)
            d_values = -d_recall
            d_read = ops.broadcast_to(((m / heads) * dr)[:, None], ops.shape(d_recall))
            d_both = ops.concatenate([d_recall, d_read], axis=1)
            for layer in reversed(range(depth)):
                d_both = d_both * self.sigmas[layer].slope(recalled[layer + 1])
                q[layer] = _put(q[layer], 3 * index * heads, d_both)
                d_both = under(layer, d_both, ops.less_equal)

            # The write M' = M - kᵀ (s Δ).
            d_written = [0.0] * (depth + 1)
            d_errors, d_scales = [], []
            for layer in range(depth):
                d_scaled = -(d_memory[layer].from_keys + d_memory[layer].grams @ q[layer])
                d_key = -(
                    d_memory[layer].from_errors
                    + (scaled[layer] @ _transpose(q[layer])) @ rows[layer]
                )
                if g[layer] is not None:
                    extra = joined_errors[layer]
                    d_scaled = d_scaled - (written[layer] @ _transpose(g[layer])) @ extra
                    d_key = d_key - (scaled[layer] @ _transpose(extra)) @ g[layer]
                d_written[layer] = d_key
                d_errors.append(scales[layer] * d_scaled)
                d_scales.append(ops.sum(d_scaled * errors[layer], axis=(1, 2)))

            # The errors Δ.
            if local:
                d_expected = ops.concatenate([-d for d in d_errors], axis=-1)
                d_values = d_values + _dense(d_expected, _transpose(weights.feedback[0]))
                for layer in range(depth):
                    d_written[layer + 1] = d_written[layer + 1] + d_errors[layer]
            else:
                d_expected = None
                for layer in range(1, depth):
                    sigma, z = self.sigmas[layer - 1], written[layer]
                    d_unsloped = d_errors[layer - 1] * sigma.slope(z)
                    d_written[layer] = d_written[layer] + (
                        d_errors[layer - 1] * unsloped[layer - 1] * sigma.curvature(z)
                    )
                    g[layer] = _put(g[layer], index * heads, d_unsloped)
                    before = d_unsloped @ _transpose(record.keys[layer])
                    before = before * ops.cast(ops.less(step_of_row, index), before.dtype)
                    d_errors[layer] = d_errors[layer] + (
                        d_unsloped @ record.matrices[layer] - before @ record.scaled_errors[layer]
                    )
                sigma, z = self.sigmas[-1], written[-1]
                d_miss = d_errors[-1] * sigma.slope(z)
                d_values = d_values - d_miss
                d_written[-1] = (
                    d_written[-1] + d_miss + (d_errors[-1] * (z - values) * sigma.curvature(z))
                )

            # The write keys' activations under the old memory.
            for layer in reversed(range(depth)):
                d_below = d_written[layer + 1] * self.sigmas[layer].slope(written[layer + 1])
                q[layer] = _put(q[layer], (3 * index + 2) * heads, d_below)
                d_written[layer] = d_written[layer] + under(layer, d_below, ops.less)

            # Eq. 1, the rate and the controller.
            d_rates = self._d_rates(m, d_scales, rates) * rates * (1.0 - rates)
            d_rate_vector = d_rates @ _transpose(weights.rate)
            d_vectors = ops.concatenate(
                [
                    d_both[:, heads:],
                    d_written[0] + d_both[:, :heads],
                    d_values,
                    d_rate_vector[:, None],
                ],
                axis=1,
            )
            d_vectors = d_vectors * (1.0 - vectors * vectors)
            d_projection = ops.reshape(d_vectors, (-1, (3 * heads + 1) * units))
            d_new = m * dh + d_projection @ _transpose(weights.interaction)
            d_gates, d_c = _lstm_backward(d_new, m * dc, c, gates)
            d_hr = d_gates @ _transpose(weights.recurrent)
            hidden_units = dh.shape[-1]
            dh = (1.0 - m) * dh + d_hr[:, :hidden_units]
            dr = (1.0 - m) * dr + d_hr[:, hidden_units:]
            dc = (1.0 - m) * dc + d_c
            records = [d_gates, d_projection, d_rates, *([d_expected] if local else [])]
            return [dh, dc, dr, *q, *([] if local else g[1:])], records

        empty = [ops.zeros_like(p) for p in rows]
        if not local:
            empty += [ops.zeros_like(keys) for keys in record.keys[1:]]
        carry, records = backend.scan(step, [*d_state, *empty], inputs, length, reverse=True)
        d_state, q, g = carry[:3], carry[3 : 3 + depth], [None, *carry[3 + depth :]]
        d_matrices = [
            d_matrix + _transpose(p) @ own
            for d_matrix, p, own in zip(d_matrices, rows, q, strict=True)
        ]
        if not local:
            for layer in range(1, depth):
                d_matrices[layer] = d_matrices[layer] + (
                    _transpose(g[layer]) @ joined_errors[layer]
                )
        d_gates, d_projection, d_rates, *d_expected = records
        d_weights = [
            _outer(record.hr, d_gates),
            _outer(record.h_new, d_projection),
            ops.sum(d_projection, axis=(0, 1)),
            _outer(record.vectors[:, :, -1], d_rates),
            ops.sum(d_rates, axis=(0, 1)),
        ]
        for d in d_expected:
            d_weights += [_outer(record.values, d), ops.sum(d, axis=(0, 1, 2))]
        return d_state, d_matrices, d_gates, d_weights

    def _d_rates(self, mask, d_scales, rates):
        """Adjoint of the rates from those of the scales `η m β^l`."""
        d_rates = self.spec.step_size * mask * ops.stack(d_scales, axis=-1)
        if rates.shape[-1] == 1:
            d_rates = ops.sum(d_rates, axis=-1, keepdims=True)
        return d_rates

    # Shapes

    def _unpack(self, rest):
        matrices, weights = rest[: self.depth], rest[self.depth :]
        return list(matrices), Weights(*weights[:5], tuple(weights[5:]))

    def _joined(self, x):
        """`[C, B, n, D]` to `[B, C n, D]`."""
        x = ops.transpose(x, (1, 0, 2, 3))
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))

    def _by_step(self, x):
        """`[B, C n, D]` to `[C, B, n, D]`."""
        x = ops.reshape(x, (-1, self.length, x.shape[1] // self.length, x.shape[2]))
        return ops.transpose(x, (1, 0, 2, 3))


class _LowRank(NamedTuple):
    """A memory layer within a chunk: `M_0 - Kᵀ E`. Rows of steps to come are zero."""

    matrix: object
    keys: object
    errors: object

    def times(self, z):
        return z @ self.matrix - (z @ _transpose(self.keys)) @ self.errors

    def times_transposed(self, z):
        return z @ _transpose(self.matrix) - (z @ _transpose(self.errors)) @ self.keys

    def append(self, row, keys, errors):
        return self._replace(
            keys=_put(self.keys, row, keys),
            errors=_put(self.errors, row, errors),
        )


class _LowRankAdjoint(NamedTuple):
    """What a step needs of a layer's adjoint `dM_C + Pᵀ Q`, but for `Q`."""

    from_keys: object  # k dM_C
    from_errors: object  # (s Δ) dM_Cᵀ
    grams: object  # k Pᵀ


class _Record(NamedTuple):
    """What the forward pass did in a chunk; time-major but for the joined ones."""

    mask: object
    hr: object  # [h; v^r] before each step
    c: object  # before each step
    h_new: object  # before masking
    gates: tuple
    vectors: object  # [C, B, 3 H + 1, D]
    rates: object
    scales: list
    values: object
    written: list  # z^0..z^L of the write keys under the old memory
    recalled: list  # z^0..z^L of [write keys; read keys] under the new one
    errors: list  # Δ^1..Δ^L
    unsloped: list
    keys: list  # joined, z^0..z^{L-1} of the write keys
    scaled_errors: list  # joined
    matrices: list  # M_0


class _Reader:
    """Takes a flat list apart from the front."""

    def __init__(self, values):
        self._values = list(values)

    def __call__(self, count):
        taken, self._values = self._values[:count], self._values[count:]
        return taken


def _lstm(gates, c):
    """Keras's LSTM from its gates before activation: `h`, `c`, and `(i, f, g, o, tanh c)`."""
    i, f, g, o = ops.split(gates, 4, axis=-1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    c = f * c + i * g
    t = ops.tanh(c)
    return o * t, c, (i, f, g, o, t)


def _lstm_backward(dh, dc, c, gates):
    """Adjoints of the gates before activation and of the cell state before the step."""
    i, f, g, o, t = gates
    dc = dc + dh * o * (1.0 - t * t)
    d_gates = [
        dc * g * i * (1.0 - i),
        dc * c * f * (1.0 - f),
        dc * i * (1.0 - g * g),
        dh * t * o * (1.0 - o),
    ]
    return ops.concatenate(d_gates, axis=-1), dc * f


def _dense(x, kernel):
    """`x @ kernel` for `x` of any rank, as one plain matrix product."""
    flat = ops.reshape(x, (-1, x.shape[-1])) @ kernel
    # At most one axis, the batch, is unknown.
    known = [-1 if n is None else n for n in x.shape[:-1]]
    return ops.reshape(flat, (*known, kernel.shape[-1]))


def _outer(x, y):
    """`Σ xᵀ y` over all axes but the last."""
    return _transpose(ops.reshape(x, (-1, x.shape[-1]))) @ ops.reshape(y, (-1, y.shape[-1]))


def _put(rows, first, new):
    """`rows`, `[B, n, D]`, with `new` in place of those from `first` on."""
    zero = ops.zeros_like(first)
    return ops.slice_update(rows, (zero, first, zero), new)


def _transpose(x):
    return ops.swapaxes(x, -1, -2)
