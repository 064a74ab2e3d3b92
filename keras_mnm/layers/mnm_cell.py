from typing import NamedTuple

import keras
from keras import ops

from keras_mnm import ops as mnm_ops
from keras_mnm.layers.memory_cell import MemoryCell
from keras_mnm.layers.neural_memory import NeuralMemory
from keras_mnm.validation import boolean, integer, number


class MNMState(NamedTuple):
    """The state of an `MNMCell`, by name; Keras carries it as one flat list of `[B, n]` tensors."""

    output: object
    """`y`, `[B, units]`. First, since Keras repeats the first state at masked steps."""
    controller: list
    """The state of the controller, flat."""
    readout: object
    """`v^r`, the mean of the values read, `[B, memory_units]`; part of the next input."""
    memory: list
    """What was written, φ - φ_0: `memory_depth` tensors `[B, memory_units²]`."""
    meta: object
    """`[B, 2]`: the sum of the meta objective's terms so far, and the number of steps."""
    delayed: list
    """With a recall delay 𝒯, the last 𝒯 pairs, the latest first: of each the write keys and the
    target values, `[B, H D]`, and `[B, 1]`, 1 where there was such a step, else 0."""


@keras.saving.register_keras_serializable(package="keras_mnm")
class MNMCell(MemoryCell):
    """One time step of Metalearned Neural Memory, a cell for `keras.layers.RNN`.

    1. The controller takes the input and the last read-out: `h_t = LSTM([x_t; v^r_{t-1}])`.
    2. Eq. 1 makes read keys, write keys and target values, `num_heads` of each, and a rate
       `β = sigmoid(W_β β' + b_β)`.
    3. The keys are written with the target values (`NeuralMemory`, Eq. 3 or 4).
    4. The new memory is read: `v^r_t`, the mean over heads.
    5. `y_t = W_y [h_t; v^r_t] + b_y`.

    The step also adds up the meta objective (Eq. 5), without which the memory is not taught to
    store. `keras_mnm.MNM` trains it by itself. With `keras.layers.RNN`, ask for the states and
    hand the meta state to `keras_mnm.MetaLoss`, as in the example; otherwise the task loss alone
    is trained.

    Args:
        units: Positive integer, units of the controller and of the output.
        memory_units: Positive integer, the memory's units `D`, the size of keys and values.
            Defaults to `None`, which means `units`.
        num_heads: Positive integer, parallel heads `H`. Defaults to `1`.
        memory_depth: Positive integer, the memory's layers `L`. Defaults to `3`.
        write_rule: `"local"` (MNM-p) or `"gradient"` (MNM-g). Defaults to `"local"`.
        controller: A Keras RNN cell. Defaults to `None`, which makes a
            `keras.layers.LSTMCell(units)`. Its output is `h_t`; `units` then is the size of the
            output alone. The cell must be pure: no dropout, nothing that `training` changes.
        rate_per_layer: Whether each memory layer has a rate of its own. Defaults to `False`.
        recall_delay: Integer 𝒯 ≥ 0 of Eq. 5: the pairs of the last 𝒯 steps count, too.
            Defaults to `0`.
        recall_decay: Number in [0, 1]; a pair of τ steps ago counts `λ_τ = recall_decay ** τ`.
            Defaults to `1.0`.
        step_size: η of the writes, see `NeuralMemory`. Defaults to `None`, `2 / (H D)`.
        memory_activation: σ of the memory's layers but the last. Defaults to `"tanh"`.
        memory_output_activation: σ of its last layer. Defaults to `"linear"`.
        memory_initializer: Initializer of φ_0. Defaults to `"orthogonal"`.
        train_initial_memory: Whether φ_0 is trained. Defaults to `False`.
        feedback: A layer in place of `BFPF`, see `NeuralMemory`. Defaults to `None`.
        tie_initial_keys: Whether read and write keys begin as the same projection of `h_t`, to be
            trained apart: what was stored in a state is then found again from similar ones at
            once. Defaults to `True`.
        kernel_initializer: Initializer of the kernels of the interaction vectors, the rate and
            the output. Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regularizer of these kernels. Defaults to `None`.
        kernel_constraint: Constraint of these kernels. Defaults to `None`.
        dtype: The dtype policy. Half precisions, mixed or not, become `float32`, see
            `NeuralMemory`; give a `keras.layers.RNN` around the cell that dtype, too. Defaults to
            `None`, Keras's global policy.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `trainable`).

    Call arguments:
        inputs: `[B, features]`.
        states: The list that `get_initial_state` or the last step returned; `unpack_state` gives
            its parts names.

    Returns:
        The output `[B, units]`, and the list of new states.

    Example:

    >>> import keras, keras_mnm
    >>> cell = keras_mnm.MNMCell(16)
    >>> inputs = keras.Input((None, 8))
    >>> outputs, *states = keras.layers.RNN(cell, return_sequences=True, return_state=True)(inputs)
    >>> outputs = keras_mnm.MetaLoss()(outputs, cell.unpack_state(states).meta)
    >>> model = keras.Model(inputs, outputs)
    >>> model(keras.random.normal((2, 5, 8))).shape == (2, 5, 16)
    True
    >>> len(model.losses)
    1
    """

    def __init__(
        self,
        units,
        memory_units=None,
        num_heads=1,
        memory_depth=3,
        write_rule="local",
        controller=None,
        *,
        rate_per_layer=False,
        recall_delay=0,
        recall_decay=1.0,
        step_size=None,
        memory_activation="tanh",
        memory_output_activation="linear",
        memory_initializer="orthogonal",
        train_initial_memory=False,
        feedback=None,
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
        self.memory_depth = integer("memory_depth", memory_depth)
        self.rate_per_layer = boolean("rate_per_layer", rate_per_layer)
        self.recall_delay = integer("recall_delay", recall_delay, minimum=0)
        self.recall_decay = number("recall_decay", recall_decay, high=1.0)
        self.memory = NeuralMemory(
            self.memory_units,
            self.memory_depth,
            write_rule,
            step_size=step_size,
            activation=memory_activation,
            output_activation=memory_output_activation,
            initializer=memory_initializer,
            train_initial_memory=train_initial_memory,
            feedback=feedback,
            dtype=self.dtype_policy,
            name="memory",
        )
        self.interaction = self._interaction(3 * self.num_heads + 1)
        self.rate = self._dense(self.memory_depth if self.rate_per_layer else 1, "rate", "sigmoid")
        self.output_projection = self._dense(self.units, "output")

    write_rule = property(lambda self: self.memory.write_rule)
    step_size = property(lambda self: self.memory.step_size)
    memory_activation = property(lambda self: self.memory.activation)
    memory_output_activation = property(lambda self: self.memory.output_activation)
    memory_initializer = property(lambda self: self.memory.initializer)
    train_initial_memory = property(lambda self: self.memory.train_initial_memory)
    feedback = property(lambda self: self.memory.feedback)

    def build(self, input_shape):
        super().build(input_shape)
        self.rate.build((None, self.memory_units))
        if not self.memory.built:  # as it is when it was used before
            self.memory.build()

    @property
    def state_size(self):
        """Sizes of the states, in the order of `MNMState`, as one flat list."""
        pair = self.num_heads * self.memory_units
        return [
            self.units,
            *self._controller_state_sizes,
            self.memory_units,
            *self.memory.state_size,
            2,
            *([pair, pair, 1] * self.recall_delay),
        ]

    def unpack_state(self, states):
        """Names the parts of a flat list of states (of tensors, or of their sizes)."""
        states = self._check_states(states)
        readout = 1 + len(self._controller_state_sizes)
        meta = readout + 1 + self.memory_depth
        return MNMState(
            output=states[0],
            controller=states[1:readout],
            readout=states[readout],
            memory=states[readout + 1 : meta],
            meta=states[meta],
            delayed=states[meta + 1 :],
        )

    def call(self, inputs, states):
        state = self.unpack_state(states)
        hidden, controller, vectors, rate = self.interact(inputs, state.readout, state.controller)
        read_keys, write_keys, values = vectors
        memory = self.memory.bind(write_keys, values, rate, state.memory)

        # Eq. 5 asks for this step's pair and, with a recall delay, for those of the steps before.
        # One pass over the new memory serves that and the read.
        flat = (-1, self.num_heads * self.memory_units)
        one = ops.ones_like(state.meta[:, :1])
        pairs = [ops.reshape(write_keys, flat), ops.reshape(values, flat), one, *state.delayed]
        keys, targets = map(self._by_head, (pairs[0::3], pairs[1::3]))
        recalled = self.memory.recall(ops.concatenate([read_keys, *keys], axis=1), memory)
        read, *recalled = ops.split(recalled, 1 + len(keys), axis=1)
        readout = ops.mean(read, axis=1)
        error = sum(
            self.recall_decay**tau * present[:, 0] * mnm_ops.squared_error(value, target)
            for tau, (present, value, target) in enumerate(
                zip(pairs[2::3], recalled, targets, strict=True)
            )
        )

        output = self.output_projection(ops.concatenate([hidden, readout], axis=-1))
        meta = state.meta + ops.stack([error, ops.ones_like(error)], axis=-1)
        delayed = pairs[: 3 * self.recall_delay]
        return output, self.pack_state(MNMState(output, controller, readout, memory, meta, delayed))

    def interact(self, inputs, readout, controller):
        """Controller and Eq. 1: as `SALUCell.interact`, and the rate `[B, 1]` or `[B, L]`."""
        hidden, controller = self._control(inputs, readout, controller)
        *vectors, rate_vector = mnm_ops.interaction_vectors(
            self.interaction(hidden), self.num_heads
        )
        return hidden, keras.tree.flatten(controller), vectors, self.rate(rate_vector)

    def _by_head(self, vectors):
        """`[B, H D]` to `[B, H, D]`, each."""
        shape = (-1, self.num_heads, self.memory_units)
        return [ops.reshape(vector, shape) for vector in vectors]

    def get_config(self):
        return {
            **super().get_config(),
            "memory_depth": self.memory_depth,
            "write_rule": self.write_rule,
            "rate_per_layer": self.rate_per_layer,
            "recall_delay": self.recall_delay,
            "recall_decay": self.recall_decay,
            "step_size": self.step_size,
            "memory_activation": keras.activations.serialize(self.memory_activation),
            "memory_output_activation": keras.activations.serialize(self.memory_output_activation),
            "memory_initializer": keras.initializers.serialize(self.memory_initializer),
            "train_initial_memory": self.train_initial_memory,
            "feedback": keras.saving.serialize_keras_object(self.feedback),
        }
