import keras
from keras import ops

from keras_mnm.layers.memory_rnn import MemoryRNN
from keras_mnm.layers.salu_cell import SALUCell
from keras_mnm.sequence import lookup


@keras.saving.register_keras_serializable(package="keras_mnm")
class SALU(MemoryRNN, cell_class=SALUCell):
    """LSTM+SALU, the baseline of the paper (§4.1): an LSTM with a soft-attention look-up table.

    Runs a `SALUCell` over a sequence: the same controller and the same read keys, write keys and
    values as in `MNM`, but every step appends its keys and values to a table, and reading is
    softmax attention over all rows so far. Masked steps do not write. The work of a step grows with
    the length of the sequence, so that of a sequence grows with its square.

    The layer's own form of the loop writes the table in place and keeps one table for the backward
    pass, not one a step; TensorFlow and torch cannot differentiate its gradient. `unroll=True` and
    a sequence of unknown length run Keras's plain loop over the cell. Half precision becomes
    `float32`, as in `MNM`.

    Args:
        units: Positive integer, units of the controller and of the output.
        memory_units: Positive integer, the size `D` of keys and values. Defaults to `units`.
        num_heads: Positive integer, parallel read and write heads `H`. Defaults to `1`.
        slots: Positive integer, the number of steps that the table has room for. Defaults to
            `None`, the length of the sequences that the layer is built for. Required for sequences
            of unknown length, with any `initial_state`, and for `stateful=True`, where it bounds
            the steps until `reset_state()`: once all slots are taken, further steps read but write
            nothing.
        return_sequences: Whether to return all outputs, `[B, T, units]`, or the last one,
            `[B, units]`. Defaults to `False`.
        return_state: Whether to return the final states, too. Defaults to `False`.
        go_backwards: Whether to run the sequence from its end. Defaults to `False`.
        stateful: Whether the states of a batch are the initial states of the next.
            `reset_state()` empties the table. Defaults to `False`.
        unroll: Whether to unroll the loop. Defaults to `False`.
        zero_output_for_mask: Whether masked steps output zeros instead of the previous output.
            Defaults to `False`.
        **kwargs: Any other argument of `SALUCell`: `controller`, `tie_initial_keys`,
            `kernel_initializer`, `kernel_regularizer`, `kernel_constraint`; and `name`, `dtype`,
            `trainable`.

    Call arguments:
        sequences: `[B, T, features]`.
        initial_state: List of states to start from. Defaults to zeros, the empty table.
        mask: Boolean `[B, T]`; `False` steps are skipped.

    Returns:
        All outputs, `[B, T, units]`, or the last one, `[B, units]`; with `return_state`, the final
        states after it, a flat list to which `layer.cell.unpack_state` gives names.

    Example:

    >>> import keras, keras_mnm
    >>> model = keras.Sequential([keras_mnm.SALU(16, return_sequences=True), keras.layers.Dense(1)])
    >>> model(keras.random.normal((2, 5, 8))).shape == (2, 5, 1)
    True
    """

    def __init__(
        self,
        units,
        memory_units=None,
        num_heads=1,
        *,
        slots=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        zero_output_for_mask=False,
        **kwargs,
    ):
        super().__init__(
            units=units,
            memory_units=memory_units,
            num_heads=num_heads,
            slots=1 if slots is None else slots,  # `build` knows better
            cell_name="salu_cell",
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        self._slot_a_step = slots is None
        if self._slot_a_step and stateful:
            raise ValueError(
                "A stateful SALU needs `slots`, the number of steps between two calls of "
                "`reset_state()`. Received: stateful=True, slots=None."
            )

    def build(self, sequences_shape, initial_state_shape=None):
        if self._slot_a_step:
            if len(sequences_shape) == 3 and sequences_shape[1] is None:
                raise ValueError(
                    "SALU makes room for its whole table at once: give the number of steps in the "
                    "input, for instance keras.Input((20, 8)), or as slots=20. Received shape "
                    f"{tuple(sequences_shape)} and slots=None."
                )
            self._make_room(sequences_shape)
        super().build(sequences_shape, initial_state_shape)

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        if self._slot_a_step and not self.built and sequences_shape[1]:
            self._make_room(sequences_shape)
        return super().compute_output_shape(sequences_shape, initial_state_shape)

    def _make_room(self, sequences_shape):
        self.cell.slots = sequences_shape[1]
        self.state_size = self.cell.state_size

    def _check_initial_state(self, states, batch_size):
        if states is not None and self._slot_a_step:
            raise ValueError(
                "A SALU that is given an `initial_state` needs `slots`, the number of steps of all "
                f"calls together. Received: slots=None; pass slots={2 * self.slots} for two calls "
                f"of {self.slots} steps."
            )
        return super()._check_initial_state(states, batch_size)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        steps = sequences.shape[1]
        if steps is not None and steps > self.slots:
            raise ValueError(
                f"A sequence of {steps} steps does not fit a look-up table with slots={self.slots}"
                f". Pass slots={steps} or more, or shorter sequences."
            )
        return super().inner_loop(sequences, initial_state, mask, training)

    def _can_fuse(self, steps):
        # Quantized kernels have no gradient to take.
        floats = all("float" in weight.dtype for weight in self._weights_of_a_step())
        return super()._can_fuse(steps) and floats

    def _weights_of_a_step(self):
        return [*self.cell.controller.weights, *self.cell.interaction.weights]

    def _fused_loop(self, inputs, mask, state):
        cell, weights = self.cell, self._weights_of_a_step()

        def interact(values, *arguments):
            with keras.StatelessScope(list(zip(weights, values, strict=True))):
                return cell.interact(*arguments)

        hidden, readouts, readout, controller, table = lookup.run(
            interact,
            [weight.value for weight in weights],
            inputs,
            mask,
            ops.zeros((ops.shape(inputs)[1], cell.hidden_size), inputs.dtype),
            state.readout,
            state.controller,
            cell.table(state),
        )
        state = state._replace(controller=controller, readout=readout)
        return hidden, readouts, cell.with_table(state, table)

    def get_config(self):
        slots = None if self._slot_a_step else self.slots
        return {**super().get_config(), "slots": slots}
