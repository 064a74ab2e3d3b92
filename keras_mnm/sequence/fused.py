"""A sequence in chunks: the controller, the loops, and what is done for a chunk at once."""

import functools
from typing import NamedTuple

from keras import ops

from keras_mnm import backend
from keras_mnm import ops as mnm_ops
from keras_mnm.sequence.low_rank import LowRank, transpose
from keras_mnm.sequence.rules import RULES, Later, Past, Step


class Spec(NamedTuple):
    """What is fixed about a sequence run."""

    num_heads: int
    write_rule: str
    step_size: float
    activation: str
    output_activation: str


class Weights(NamedTuple):
    """The trained weights of a step; `feedback` is empty under the gradient rule."""

    gates: object  # [features + U + D, 4 U], from [x; h; v^r]
    gates_bias: object
    interaction: object  # [U, (3 H + 1) D]
    interaction_bias: object
    rate: object  # [D, 1] or [D, L]
    rate_bias: object
    feedback: tuple = ()  # kernel [D, L D] and bias

    def flat(self):
        """One list; undone by `from_flat`."""
        return [*self[:-1], *self.feedback]

    @classmethod
    def from_flat(cls, weights):
        """Undoes `flat`."""
        count = len(cls._fields) - 1
        return cls(*weights[:count], tuple(weights[count:]))


class Controller(NamedTuple):
    """The controller's state and the last read-out, which it is fed."""

    h: object  # [B, U]
    c: object
    readout: object  # [B, D]


class Record(NamedTuple):
    """What the forward pass keeps of a step; within a chunk time-major."""

    state: Controller
    last: object  # z^L of the write keys under the memory before the write
    recalled: list  # z^1..z^L of [write keys; read keys] under the memory after it
    unsloped: list  # see `rules.Step`


class Chunk(NamedTuple):
    """What the forward pass keeps of a chunk."""

    start: Controller
    matrices: list  # M_0 of each layer
    keys: list  # K of each layer
    records: Record


class Replay(NamedTuple):
    """What happened in a chunk; time-major but for `past`."""

    mask: object
    fed: object  # [x; h; v^r] that each step begins with
    c: object  # before each step
    h: object  # after it, masked or not
    gates: tuple
    vectors: object  # [C, B, 3 H + 1, D]
    rates: object
    steps: Step
    past: list  # of `Past`, by layer


def chunk_length(steps, heads, units):
    """The steps of a chunk, by shape: what was fastest, give or take, that pads the fewest steps.

    Longer chunks make the low-rank sums dear, which have a row for each step and head; shorter
    ones what is done, and kept, once a chunk. The best had `C H` at about a sixth of `D`.
    """
    best = min(max(units // (6 * heads), 12 // heads, 3), 20)
    shortest, longest = round(0.7 * best), round(1.4 * best)
    if steps <= longest:
        return steps
    return min(range(shortest, longest + 1), key=lambda c: (-steps % c, abs(c - best)))


def run(inputs, mask, state, weights, spec, tape=None):
    """Runs a sequence.

    Args:
        inputs: `[T, B, features]`.
        mask: `[T, B, 1]`, 1 at the steps that count and 0 at the masked ones.
        state: `h`, `c` (`[B, U]`), read-out (`[B, D]`), and the memory's `L` matrices `[B, D, D]`.
        weights: `Weights`.
        spec: `Spec`.
        tape: What `closed_loop.play` returned for these very arguments, whose numbers are taken
            instead of being computed again. Defaults to `None`.

    Returns:
        Hidden states `[T, B, U]`, read-outs `[T, B, D]`, the sum over steps of the recall error
        (Eq. 5, τ = 0) `[B]`, and the final state in the form of `state`.
    """
    steps, units = inputs.shape[0], state[-1].shape[-1]
    length = chunk_length(steps, spec.num_heads, units)
    inputs, mask = in_chunks(inputs, length), in_chunks(mask, length)
    if tape is None:
        function = _differentiable(spec, len(state) - 3, length, tuple(inputs.shape))
    else:
        sequence = Sequence(spec, len(state) - 3, length)
        replay = functools.partial(sequence.from_tape, tape)
        function = backend.custom_gradient(replay, sequence.backward)
    hidden, readout, error, *final = function(inputs, mask, *state, *weights.flat())
    return whole(hidden, steps), whole(readout, steps), error, final


@functools.lru_cache
def _differentiable(spec, depth, length, shape):
    """`Sequence.forward` with its derivative, which the backend may trace.

    One for each shape of inputs, of which the latest are kept: TensorFlow warns of a function that
    is traced often.
    """
    sequence = Sequence(spec, depth, length)
    forward, backward = map(backend.traced_once, (sequence.forward, sequence.backward))
    return backend.custom_gradient(forward, backward)


def in_chunks(x, length):
    """`[T, B, n]` to `[N, C, B, n]`, with zeros after the end: masked steps."""
    padding = -x.shape[0] % length
    if padding:
        x = ops.pad(x, [(0, padding), (0, 0), (0, 0)])
    return ops.reshape(x, (x.shape[0] // length, length, -1, x.shape[-1]))


def whole(x, steps):
    """Undoes `in_chunks`: `[N, C, B, ...]` to `[T, B, ...]`."""
    return ops.reshape(x, (x.shape[0] * x.shape[1], -1, *x.shape[3:]))[:steps]


class Sequence:
    """Forward and backward pass for a given `Spec`, depth `L` and chunk length `C`."""

    def __init__(self, spec, depth, length):
        self.spec = spec
        self.depth = depth
        self.length = length
        self.rule = RULES[spec.write_rule](spec, depth, length)

    # Forward

    def forward(self, inputs, mask, *arguments):
        """Outputs of `run`, and what the backward pass needs."""
        start, matrices, weights = self._unpack(arguments)
        index = ops.arange(self.length, dtype="int32")

        def chunk(carry, parts):
            start, error, matrices = carry
            inputs, mask = parts
            from_inputs = dense(inputs, weights.gates[: inputs.shape[-1]]) + weights.gates_bias

            def step(carry, parts):
                return self.step(*parts, carry, matrices, weights)

            begin = (start, error, self.unwritten(matrices))
            (state, error, factors), records = backend.scan(
                step, begin, (from_inputs, mask, index), self.length
            )
            matrices, kept = self.end_of_chunk(start, matrices, factors, records)
            return (state, error, matrices), kept

        carry = (start, ops.zeros_like(start.h[:, 0]), matrices)
        after, chunks = backend.scan(chunk, carry, (inputs, mask), inputs.shape[0])
        return self.outputs(after, chunks), (inputs, mask, weights, chunks)

    def from_tape(self, tape, inputs, mask, *arguments):
        """What `forward` returns for these arguments, by the tape that was played with them."""
        (outputs, chunks), (_, _, weights) = tape, self._unpack(arguments)
        return outputs, (inputs, mask, weights, chunks)

    def end_of_chunk(self, start, matrices, factors, records):
        """The matrices after a chunk, and what is kept of it."""
        memory = self.memory(matrices, factors)
        kept = Chunk(start, matrices, [part.keys for part in memory], records)
        return [part.after_chunk() for part in memory], kept

    def outputs(self, after, chunks):
        """The outputs of `forward`, from the last carry and all that was kept."""
        state, error, matrices = after
        return [chunks.records.state.h, chunks.records.state.readout, error, *state, *matrices]

    def unwritten(self, matrices):
        """The factors `K` and `E` of each layer at a chunk's start."""
        batch, units = ops.shape(matrices[0])[0], matrices[0].shape[-1]
        rows = ops.zeros((batch, self.length * self.spec.num_heads, units), matrices[0].dtype)
        return [[rows] * self.depth] * 2

    def memory(self, matrices, factors):
        """The memory's layers."""
        return [LowRank(*parts) for parts in zip(matrices, *factors, strict=True)]

    def step(self, from_x, m, index, carry, matrices, weights):
        """A step of a chunk.

        Args:
            from_x: What the input adds to the gates, `[B, 4 U]`.
            m: `[B, 1]`, 0 where the step is masked.
            index: The step's number in its chunk.
            carry: The state, the error so far, and the factors.

        Returns:
            The new carry, and the step's `Record`.
        """
        state, error, factors = carry
        heads, memory = self.spec.num_heads, self.memory(matrices, factors)
        units = state.h.shape[-1] + state.readout.shape[-1]
        fed = ops.concatenate([state.h, state.readout], axis=-1)
        gates = from_x + fed @ weights.gates[-units:]
        h, c, _ = _lstm(gates, state.c)
        vectors, rates = self._interact(h, weights)
        read_keys, write_keys, values = (vectors[:, i * heads : (i + 1) * heads] for i in range(3))
        memory, last, recalled, unsloped = self.rule.write_and_recall(
            index,
            write_keys,
            read_keys,
            values,
            self._expected(values, weights),
            self._scales(m, rates),
            memory,
        )
        readout = ops.mean(recalled[-1][:, heads:], axis=1)
        miss = mnm_ops.squared_error(recalled[-1][:, :heads], values)
        new = Controller(h, c, readout)
        state = Controller(
            *(ops.where(m > 0, one, other) for one, other in zip(new, state, strict=True))
        )
        factors = [[part.keys for part in memory], [part.errors for part in memory]]
        record = Record(state, last, recalled, unsloped)
        return (state, error + m[:, 0] * miss, factors), record

    # What a step makes of the hidden state; for one step or, with a time axis, for a chunk.

    def _interact(self, h, weights):
        """Eq. 1: the `3 H + 1` interaction vectors `[..., 3 H + 1, D]`, and the rates."""
        vectors = ops.tanh(dense(h, weights.interaction) + weights.interaction_bias)
        count = 3 * self.spec.num_heads + 1
        vectors = _split_last(vectors, count)
        rates = ops.sigmoid(dense(vectors[..., -1, :], weights.rate) + weights.rate_bias)
        return vectors, rates

    def _scales(self, mask, rates):
        """`η β^l` at steps that count, else 0: `[..., 1, 1]` for each layer."""
        scales = (self.spec.step_size * mask * rates)[..., None, None]
        return [scales[..., layer % rates.shape[-1], :, :] for layer in range(self.depth)]

    def _expected(self, values, weights):
        """`ẑ^1..ẑ^L` of the feedback prediction functions, for values `[..., H, D]`."""
        if not weights.feedback:
            return []
        kernel, bias = weights.feedback
        return ops.split(dense(values, kernel) + bias, self.depth, axis=-1)

    # Backward

    def backward(self, residuals, cotangents):
        """Cotangents of the arguments of `forward`."""
        inputs, mask, weights, chunks = residuals
        d_hidden, d_readouts, d_error, *d_final = cotangents

        def chunk(carry, parts):
            d_state, d_matrices, sums = carry
            inputs, mask, d_hidden, d_readouts, kept = parts
            replay = self._replay(inputs, mask, kept, d_matrices, weights)
            d_state, d_matrices, d_inputs, d_weights = self._chunk_backward(
                replay, d_hidden, d_readouts, d_error, d_state, d_matrices, weights
            )
            return (
                d_state,
                d_matrices,
                [a + d for a, d in zip(sums, d_weights, strict=True)],
            ), d_inputs

        sums = [ops.zeros_like(weight) for weight in weights.flat()]
        carry = (Controller(*d_final[:3]), d_final[3:], sums)
        steps = (inputs, mask, d_hidden, d_readouts, chunks)
        (d_state, d_matrices, d_weights), d_inputs = backend.scan(
            chunk, carry, steps, inputs.shape[0], reverse=True
        )
        return [d_inputs, ops.zeros_like(mask), *d_state, *d_matrices, *d_weights]

    def _replay(self, inputs, mask, kept, d_matrices, weights):
        """Everything about a chunk's steps that no loop is needed for.

        `d_matrices` are the adjoints of the matrices after the chunk.
        """
        heads, records = self.spec.num_heads, kept.records
        before = Controller(
            *(
                ops.concatenate([first[None], after[:-1]], axis=0)
                for first, after in zip(kept.start, records.state, strict=True)
            )
        )
        fed = ops.concatenate([inputs, before.h, before.readout], axis=-1)
        h, _, gates = _lstm(dense(fed, weights.gates) + weights.gates_bias, before.c)
        vectors, rates = self._interact(h, weights)
        values = vectors[:, :, 2 * heads : 3 * heads]
        scales = self._scales(mask, rates)
        written = [*map(self._by_step, kept.keys), records.last]
        expected = self._expected(values, weights)
        errors = self.rule.errors(written, values, expected, records.unsloped)
        scaled = [scale * error for scale, error in zip(scales, errors, strict=True)]
        first = ops.concatenate([vectors[:, :, heads : 2 * heads], vectors[:, :, :heads]], axis=2)
        new = [first, *records.recalled[:-1]]
        past = [
            Past(
                LowRank(matrix, keys, self._joined(scaled[layer])),
                transpose(matrix),
                given=self._joined(ops.concatenate([written[layer], new[layer]], axis=2)),
                errors=self._joined(errors[layer]),
            )
            for layer, (matrix, keys) in enumerate(zip(kept.matrices, kept.keys, strict=True))
        ]
        steps = Step(
            index=ops.arange(self.length, dtype="int32"),
            values=values,
            scales=scales,
            written=written,
            recalled=records.recalled,
            errors=errors,
            unsloped=records.unsloped,
            later=self._later(past, scaled, d_matrices),
        )
        return Replay(mask, fed, before.c, h, gates, vectors, rates, steps, past)

    def _chunk_backward(self, replay, d_hidden, d_readouts, d_error, d_state, d_matrices, weights):
        """Walks back through a chunk.

        Returns:
            The adjoints of the state and of the matrices before the chunk, of the inputs, and of
            the weights, in order.
        """
        heads, past = self.spec.num_heads, replay.past
        # Transposed here, for no step should have to.
        gates_kernel, interaction, rate, *feedback = map(
            transpose, (weights.gates, weights.interaction, weights.rate, *weights.feedback[:1])
        )
        hidden_units, units = d_state.h.shape[-1], d_state.readout.shape[-1]
        features = weights.gates.shape[0] - hidden_units - units
        to_inputs, to_state = gates_kernel[:, :features], gates_kernel[:, features:]

        def step(carry, inputs):
            d_state, buffers = carry
            dh_out, dr_out, m, c, gates, vectors, rates, step = inputs
            dh, dc, dr = d_state
            dh, dr = dh + dh_out, dr + dr_out

            # The recall error and v^r, both read from the new memory.
            miss = step.recalled[-1][:, :heads] - step.values
            d_miss = (2.0 / (heads * miss.shape[-1])) * (m * d_error[:, None])[:, :, None] * miss
            d_read = ops.broadcast_to(((m / heads) * dr)[:, None], ops.shape(miss))
            d_recalled = ops.concatenate([d_miss, d_read], axis=1)
            adjoint, buffers = self.rule.pull_back(step, past, buffers, d_recalled)

            d_values = adjoint.values - d_miss
            d_expected = []
            if feedback:
                d_expected = ops.concatenate(adjoint.expected, axis=-1)
                d_values = d_values + dense(d_expected, *feedback)
            d_rates = self._d_rates(m, adjoint.scales, rates)
            d_vectors = [
                adjoint.read_keys,
                adjoint.write_keys,
                d_values,
                (d_rates @ rate)[:, None],
            ]
            d_vectors = ops.concatenate(d_vectors, axis=1) * (1.0 - vectors * vectors)
            d_projection = ops.reshape(d_vectors, (-1, interaction.shape[0]))
            d_new = m * dh + d_projection @ interaction
            d_gates, d_c = _lstm_backward(d_new, m * dc, c, gates)
            d_fed = d_gates @ to_state
            d_state = Controller(
                (1.0 - m) * dh + d_fed[:, :hidden_units],
                (1.0 - m) * dc + d_c,
                (1.0 - m) * dr + d_fed[:, hidden_units:],
            )
            return (d_state, buffers), (d_gates, d_projection, d_rates, d_expected)

        inputs = (
            d_hidden,
            d_readouts,
            replay.mask,
            replay.c,
            replay.gates,
            replay.vectors,
            replay.rates,
            replay.steps,
        )
        (d_state, buffers), (d_gates, d_projection, d_rates, d_expected) = backend.scan(
            step, (d_state, self.rule.buffers(past)), inputs, self.length, reverse=True
        )
        d_matrices = [
            after + own
            for after, own in zip(d_matrices, self.rule.d_matrices(past, buffers), strict=True)
        ]
        d_weights = [
            *_d_dense(replay.fed, d_gates),
            *_d_dense(replay.h, d_projection),
            *_d_dense(replay.vectors[:, :, -1], d_rates),
        ]
        if feedback:
            d_weights += _d_dense(replay.steps.values, d_expected)
        return d_state, d_matrices, dense(d_gates, to_inputs), d_weights

    def _later(self, past, scaled, d_matrices):
        """What each step needs of the adjoints of the matrices after the chunk, by layer."""
        return [
            Later(
                from_key=self._by_step(layer.memory.keys @ d_matrix),
                from_error=self._by_step(layer.memory.errors @ transpose(d_matrix)),
                key_products=self._by_step(layer.memory.keys @ transpose(layer.given)),
                error=error,
            )
            for layer, error, d_matrix in zip(past, scaled, d_matrices, strict=True)
        ]

    def _d_rates(self, mask, d_scales, rates):
        """Adjoint of the rates, before their sigmoid, from those of the scales `η m β^l`."""
        d_rates = self.spec.step_size * mask * ops.stack(d_scales, axis=-1)
        if rates.shape[-1] == 1:
            d_rates = ops.sum(d_rates, axis=-1, keepdims=True)
        return d_rates * rates * (1.0 - rates)

    # Shapes

    def _unpack(self, arguments):
        """State, matrices and weights from the flat arguments of `forward`."""
        matrices, weights = arguments[3 : 3 + self.depth], arguments[3 + self.depth :]
        return (
            Controller(*arguments[:3]),
            list(matrices),
            Weights.from_flat(weights),
        )

    def _joined(self, x):
        """`[C, B, n, D]` to `[B, C n, D]`."""
        x = ops.transpose(x, (1, 0, 2, 3))
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))

    def _by_step(self, x):
        """`[B, C n, D]` to `[C, B, n, D]`."""
        x = ops.reshape(x, (-1, self.length, x.shape[1] // self.length, x.shape[2]))
        return ops.transpose(x, (1, 0, 2, 3))


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


def dense(x, kernel):
    """`x @ kernel` for `x` of any rank, as one plain matrix product."""
    flat = ops.reshape(x, (-1, x.shape[-1])) @ kernel
    return ops.reshape(flat, (*_leading(x), kernel.shape[-1]))


def _split_last(x, count):
    """`[..., count n]` to `[..., count, n]`."""
    return ops.reshape(x, (*_leading(x), count, x.shape[-1] // count))


def _leading(x):
    """All axes but the last; at most one of them, the batch, is unknown."""
    return [-1 if n is None else n for n in x.shape[:-1]]


def _d_dense(x, dy):
    """Adjoints of kernel and bias, `Σ xᵀ dy` and `Σ dy` over all axes but the last."""
    x, dy = (ops.reshape(part, (-1, part.shape[-1])) for part in (x, dy))
    return transpose(x) @ dy, ops.sum(dy, axis=0)
