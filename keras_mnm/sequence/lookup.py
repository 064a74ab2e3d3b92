"""A soft-attention look-up table that grows by a slot a step, and a sequence run over it.

A table only ever grows, so the one at step `t` is the last one without the slots that were written
after `t`. The loop over steps writes one slot in place; the backward pass has the last table and
the small vectors of each step, where automatic differentiation would keep every table. Of a step
it asks the backend for two derivatives: of the read, which gives the table's adjoint and through
it those of the pair that the step wrote, and of what the controller did. Weights and inputs get
their gradients at the end, all steps as one batch.

Shapes: `T` steps, `B` samples, `H` heads, `D` memory units, `S` slots of `H` rows each. Tensors of
all steps are time-major.
"""

from typing import NamedTuple

from keras import ops, tree

from keras_mnm import backend


class Table(NamedTuple):
    """The look-up table of each sample."""

    keys: object  # [B, S H, D]
    values: object  # [B, S H, D]
    present: object  # [B, S], 1 where a slot was written, else 0

    @property
    def slots(self):
        """`S`."""
        return self.present.shape[-1]

    @property
    def heads(self):
        """`H`."""
        return self.keys.shape[1] // self.slots

    def next_slot(self):
        """The slot after the last one that any sample has written; `S` when there is none left."""
        numbers = ops.arange(1, self.slots + 1, dtype="int32")
        return ops.max(ops.cast(self.present > 0, "int32") * numbers)

    def append(self, slot, keys, values, mask):
        """The table with the keys and values `[B, H, D]` of a step in `slot`, if there is one.

        A sample whose `mask`, `[B, 1]`, is 0 writes nothing.
        """
        fits = ops.logical_and(mask > 0, slot < self.slots)[:, None]
        zero = ops.zeros_like(slot)
        start = (zero, self.heads * self._in_range(slot), zero)

        def put(rows, new):
            # To read the old rows anywhere but at their end would cost a copy of them.
            return backend.slice_update(rows, start, ops.where(fits, new, rows[:, -self.heads :]))

        here = ops.cast(ops.arange(self.slots, dtype="int32") == slot, mask.dtype)
        return Table(
            put(self.keys, keys),
            put(self.values, values),
            ops.maximum(self.present, mask * here),
        )

    def read(self, keys):
        """`Σ_s softmax_s(k · k_s / √D) v_s`, the mean over heads, for read keys `[B, H, D]`."""
        scores = ops.matmul(keys, ops.swapaxes(self.keys, 1, 2)) * keys.shape[-1] ** -0.5
        present = ops.repeat(self.present, self.heads, axis=-1)[:, None]
        weights = ops.softmax(ops.where(present > 0, scores, -1e9), axis=-1)
        return ops.mean(ops.matmul(weights, self.values), axis=1)

    def until(self, slot):
        """The table as it was when `slot` had just been written."""
        then = ops.arange(self.slots, dtype="int32") <= slot
        return self._replace(present=self.present * ops.cast(then, self.present.dtype))

    def at(self, slot, rows):
        """`[B, H, D]`, what stands in a slot of `rows`, `[B, S H, D]`."""
        rows = ops.reshape(rows, (-1, self.slots, self.heads * rows.shape[-1]))
        row = ops.take(rows, self._in_range(slot), axis=1)
        return ops.reshape(row, (-1, self.heads, self.keys.shape[-1]))

    def _in_range(self, slot):
        return ops.minimum(slot, self.slots - 1)


def run(interact, weights, inputs, mask, hidden, readout, controller, table):
    """Runs a sequence.

    Args:
        interact: A function of the weights, a step's input, the last read-out and the controller's
            state that returns the hidden state, the controller's new state, and a list of read
            keys, write keys and values, each `[B, H, D]`.
        weights: List of all weights that it depends on.
        inputs: `[T, B, features]`.
        mask: `[T, B, 1]`, 1 at the steps that count and 0 at the masked ones.
        hidden: `[B, U]`, the hidden state at masked steps before all others.
        readout: `[B, D]`, the last read-out.
        controller: The controller's state, a list of `[B, n]`.
        table: `Table`.

    Returns:
        Hidden states `[T, B, U]` and read-outs `[T, B, D]`, which masked steps repeat, and the
        read-out, the controller's state and the table at the end.
    """
    sequence = _Sequence(interact, len(controller))
    function = backend.custom_gradient(sequence.forward, sequence.backward)
    hidden, readouts, *final = function(
        inputs, mask, *table, hidden, readout, *controller, *weights
    )
    table, (_, readout, *controller), _ = sequence.unpack(final)
    return hidden, readouts, readout, controller, table


class _Sequence:
    """Forward and backward pass. The small state of a step is `[hidden, readout, *controller]`."""

    def __init__(self, interact, controller_states):
        self.interact = interact
        self.small_states = 2 + controller_states

    def unpack(self, arguments):
        """Table, small state and weights from a flat list of them."""
        table, rest = Table(*arguments[:3]), list(arguments[3:])
        return table, rest[: self.small_states], rest[self.small_states :]

    def forward(self, inputs, mask, *arguments):
        """Outputs of `run`, and what the backward pass needs."""
        table, small, weights = self.unpack(arguments)

        def step(carry, inputs):
            table, (_, *before) = carry
            x, m = inputs
            hidden, *controller, read_keys, keys, values = self._interact(weights, x, before)
            slot = table.next_slot()
            table = table.append(slot, keys, values, m)
            new = [hidden, table.read(read_keys), *controller]
            new = [ops.where(m > 0, one, other) for one, other in zip(new, carry[1], strict=True)]
            return (table, new), (new[:2], before, read_keys, slot)

        (table, small), (outputs, *records) = backend.scan(
            step, (table, small), (inputs, mask), inputs.shape[0]
        )
        return [*outputs, *table, *small], (inputs, mask, records, table, weights)

    def backward(self, residuals, cotangents):
        """Cotangents of the arguments of `forward`."""
        inputs, mask, (before, read_keys, slots), table, weights = residuals
        d_outputs, (d_table, d_small, _) = cotangents[:2], self.unpack(cotangents[2:])

        def step(carry, inputs):
            d_small, d_keys, d_values = carry
            x, m, d_outputs, before, read_keys, slot = inputs
            d_hidden, d_readout = (d + more for d, more in zip(d_small, d_outputs, strict=False))
            d_small = [d_hidden, d_readout, *d_small[2:]]
            d_hidden, d_readout, *d_controller = [m * d for d in d_small]

            then = table.until(slot)
            d_read_keys, more_keys, more_values = backend.gradient(
                lambda a: ops.sum(then._replace(keys=a[1], values=a[2]).read(a[0]) * d_readout),
                [read_keys, table.keys, table.values],
            )
            d_keys, d_values = d_keys + more_keys, d_values + more_values
            # All later reads of the pair that was written here are in now.
            fits = m[:, None] * ops.cast(slot < table.slots, m.dtype)
            d_pair = [fits * table.at(slot, d) for d in (d_keys, d_values)]

            d_step = [d_hidden, *d_controller, d_read_keys, *d_pair]
            d_before = backend.gradient(
                lambda before: _inner(self._interact(weights, x, before), d_step), before
            )
            kept = [(1.0 - m) * d for d in d_small]
            d_small = [kept[0], *(a + b for a, b in zip(kept[1:], d_before, strict=True))]
            return (d_small, d_keys, d_values), d_step

        carry = (d_small, d_table.keys, d_table.values)
        steps = (inputs, mask, d_outputs, before, read_keys, slots)
        (d_small, d_keys, d_values), d_steps = backend.scan(
            step, carry, steps, inputs.shape[0], reverse=True
        )
        # Slots that were written here pass nothing on to the table before.
        stayed = ops.arange(table.keys.shape[1], dtype="int32") < slots[0] * table.heads
        stayed = ops.cast(stayed, d_keys.dtype)[None, :, None]
        d_table = [d_keys * stayed, d_values * stayed, ops.zeros_like(table.present)]
        d_inputs, d_weights = self._of_all_steps(inputs, before, d_steps, weights)
        return [d_inputs, ops.zeros_like(mask), *d_table, *d_small, *d_weights]

    def _of_all_steps(self, inputs, before, d_steps, weights):
        """Cotangents of the inputs and of the weights, from those of all the steps."""
        x, before, d_steps = tree.map_structure(
            lambda x: ops.reshape(x, (-1, *x.shape[2:])), (inputs, before, d_steps)
        )
        d_x, *d_weights = backend.gradient(
            lambda a: _inner(self._interact(a[1:], a[0], before), d_steps), [x, *weights]
        )
        return ops.reshape(d_x, (inputs.shape[0], -1, inputs.shape[-1])), d_weights

    def _interact(self, weights, x, before):
        """What `interact` returns, as one flat list; `before` is `[readout, *controller]`."""
        hidden, controller, vectors = self.interact(weights, x, before[0], before[1:])
        return [hidden, *controller, *vectors]


def _inner(outputs, cotangents):
    """The scalar whose gradient has these cotangents."""
    return sum(ops.sum(y * d) for y, d in zip(outputs, cotangents, strict=True))
