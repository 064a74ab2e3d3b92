from typing import NamedTuple

import keras
from keras import ops

from keras_mnm.layers.memory_cell import MemoryCell
from keras_mnm.sequence.lookup import Table
from keras_mnm.validation import integer


class SALUState(NamedTuple):
    """The state of a `SALUCell`, by name; Keras carries it as one flat list of `[B, n]` tensors."""

    output: object
    """`y`, `[B, units]`. First, since Keras repeats the first state at masked steps."""
    controller: list
    """The state of the controller, flat."""
    readout: object
    """`v^r`, the mean of the values read, `[B, memory_units]`; part of the next input."""
    keys: object
    """The table's keys, `[B, slots H D]`."""
    values: object
    """The table's values, `[B, slots H D]`."""
    present: object
    """`[B, slots]`, 1 where a slot was written, else 0."""


@keras.saving.register_keras_serializable(package="keras_mnm")
class SALUCell(MemoryCell):
    """One time step of the paper's baseline LSTM+SALU, a cell for `keras.layers.RNN` (§4.1).

    `MNMCell` with a soft-attention look-up table in place of the neural memory:

    1. The controller takes the input and the last read-out: `h_t = LSTM([x_t; v^r_{t-1}])`.
    2. Eq. 1 makes read keys, write keys and target values, `num_heads` of each.
    3. Write keys and values are appended to the table, which grows by `num_heads` rows a step.
    4. The table is read: `v^r_t = Σ_s softmax_s(k^r · k_s / √D) v_s` over all rows so far, this
       step's among them, as a mean over heads. The paper leaves the scale open; `√D` is usual.
    5. `y_t = W_y [h_t; v^r_t] + b_y`.

    Room for the table is made at once, and what is not written yet is not read.

    Args:
        units: Positive integer, units of the controller and of the output.
        memory_units: Positive integer, the size `D` of keys and values. Defaults to `None`, which
            means `units`.
        num_heads: Positive integer, parallel heads `H`. Defaults to `1`.
        controller: A Keras RNN cell, see `MNMCell`. Defaults to `None`, which makes a
            `keras.layers.LSTMCell(units)`.
        slots: Positive integer, the number of steps that the table has room for. Once all slots
            are taken, further steps read but write nothing.
        tie_initial_keys: Whether read and write keys begin as the same projection of `h_t`, to be
            trained apart. Defaults to `True`.
        kernel_initializer: Initializer of the kernels of the interaction vectors and the output.
            Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regularizer of these kernels. Defaults to `None`.
        kernel_constraint: Constraint of these kernels. Defaults to `None`.
        dtype: The dtype policy. Half precisions, mixed or not, become `float32`, as in `MNMCell`.
            Defaults to `None`, Keras's global policy.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `trainable`).

    Call arguments:
        inputs: `[B, features]`.
        states: The list that `get_initial_state` or the last step returned; `unpack_state` gives
            its parts names.

    Returns:
        The output `[B, units]`, and the list of new states.

    Example:

    >>> import keras, keras_mnm
    >>> cell = keras_mnm.SALUCell(16, slots=5)
    >>> layer = keras.layers.RNN(cell, return_sequences=True)
    >>> layer(keras.random.normal((2, 5, 8))).shape == (2, 5, 16)
    True
    """

    def __init__(
        self,
        units,
        memory_units=None,
        num_heads=1,
        controller=None,
        *,
        slots,
        tie_initial_keys=True,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        kernel_constraint=None,
        **kwargs,
    ):
        super().__init__(
            units,
            memory_units,
            num_heads,
            controller,
            tie_initial_keys,
            kernel_initializer,
            kernel_regularizer,
            kernel_constraint,
            **kwargs,
        )
        self.slots = integer("slots", slots)
        self.interaction = self._interaction(3 * self.num_heads)
        self.output_projection = self._dense(self.units, "output")

    @property
    def state_size(self):
        """Sizes of the states, in the order of `SALUState`, as one flat list."""
        table = self.slots * self.num_heads * self.memory_units
        controller = self._controller_state_sizes
        return [self.units, *controller, self.memory_units, table, table, self.slots]

    def unpack_state(self, states):
        """Names the parts of a flat list of states (of tensors, or of their sizes)."""
        output, *controller, readout, keys, values, present = self._check_states(states)
        return SALUState(output, controller, readout, keys, values, present)

    def call(self, inputs, states):
        state = self.unpack_state(states)
        hidden, controller, vectors = self.interact(inputs, state.readout, state.controller)
        read_keys, keys, values = vectors
        table = self.table(state)
        table = table.append(table.next_slot(), keys, values, ops.ones_like(state.output[:, :1]))
        readout = table.read(read_keys)
        output = self.output_projection(ops.concatenate([hidden, readout], axis=-1))
        state = state._replace(output=output, controller=controller, readout=readout)
        return output, self.pack_state(self.with_table(state, table))

    def interact(self, inputs, readout, controller):
        """Controller and Eq. 1.

        Returns:
            The hidden state, the controller's new state, and a list of read keys, write keys and
            values, each `[B, H, D]`.
        """
        hidden, controller = self._control(inputs, readout, controller)
        shape = (-1, 3, self.num_heads, self.memory_units)
        vectors = ops.reshape(ops.tanh(self.interaction(hidden)), shape)
        return hidden, keras.tree.flatten(controller), ops.unstack(vectors, axis=1)

    def table(self, state):
        """The look-up table in a state."""
        shape = (-1, self.slots * self.num_heads, self.memory_units)
        return Table(
            ops.reshape(state.keys, shape), ops.reshape(state.values, shape), state.present
        )

    def with_table(self, state, table):
        """`state` with another look-up table."""
        shape = (-1, self.slots * self.num_heads * self.memory_units)
        keys, values = ops.reshape(table.keys, shape), ops.reshape(table.values, shape)
        return state._replace(keys=keys, values=values, present=table.present)

    def get_config(self):
        return {**super().get_config(), "slots": self.slots}
