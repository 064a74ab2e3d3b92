import contextlib
import threading

import keras
from keras import ops

from keras_mnm import sequence
from keras_mnm.layers.bfpf import BFPF
from keras_mnm.layers.memory_rnn import MemoryRNN
from keras_mnm.layers.meta_loss import MetaLoss, RunningMetaLoss
from keras_mnm.layers.mnm_cell import MNMCell
from keras_mnm.validation import number


@keras.saving.register_keras_serializable(package="keras_mnm")
class MNM(MemoryRNN, cell_class=MNMCell):
    """Metalearned Neural Memory: a recurrent layer whose memory is a small neural network.

    Runs an `MNMCell` over a sequence, as `keras.layers.LSTM` runs an `LSTMCell`, and adds the
    meta objective (Eq. 5) to the model's loss, which teaches the memory to store. `fit` shows
    it as `meta_loss`. Masked steps neither write nor count.

    With its default controller the layer runs a fused form of the sequence, with a gradient of its
    own, which TensorFlow and torch cannot differentiate again; `unroll=True` runs the plain loop,
    as does anything that the fused form does not know, such as other activations.

    Args:
        units: Positive integer, units of the controller and of the output.
        memory_units: Positive integer, the memory's units `D`. Defaults to `units`.
        num_heads: Positive integer, parallel read and write heads `H`. Defaults to `1`.
        memory_depth: Positive integer, the memory's layers `L`. Defaults to `3`.
        write_rule: `"local"` (MNM-p) or `"gradient"` (MNM-g). Defaults to `"local"`.
        meta_loss_weight: Number ≥ 0, the weight of the meta objective. Defaults to `1.0`.
        return_sequences: Whether to return all outputs, `[B, T, units]`, or the last one,
            `[B, units]`. Defaults to `False`.
        return_state: Whether to return the final states, too. Defaults to `False`.
        go_backwards: Whether to run the sequence from its end. Defaults to `False`.
        stateful: Whether the states of a batch are the initial states of the next.
            `reset_state()` empties the memory, back to φ_0. Defaults to `False`.
        unroll: Whether to unroll the loop. Defaults to `False`.
        zero_output_for_mask: Whether masked steps output zeros instead of the previous output.
            Defaults to `False`.
        dtype: The dtype policy. Half precisions, mixed or not, become `float32`: the layer takes
            inputs of any precision, and the next layer casts its outputs. In the fused form that
            holds for a `controller` and a `feedback` of a mixed policy, too. Defaults to `None`,
            Keras's global policy.
        **kwargs: Any other argument of `MNMCell`: `controller`, `rate_per_layer`, `recall_delay`,
            `recall_decay`, `step_size`, `memory_activation`, `memory_output_activation`,
            `memory_initializer`, `train_initial_memory`, `feedback`, `tie_initial_keys`,
            `kernel_initializer`, `kernel_regularizer`, `kernel_constraint`; and `name` and
            `trainable`.

    Call arguments:
        sequences: `[B, T, features]`.
        initial_state: List of states to start from. Defaults to zeros, with the memory at φ_0.
        mask: Boolean `[B, T]`; `False` steps are skipped.
        training: Python boolean, handed to the controller, which must not depend on it.

    Returns:
        All outputs, `[B, T, units]`, or the last one, `[B, units]`; with `return_state`, the final
        states after it, a flat list to which `layer.cell.unpack_state` gives names.

    Example:

    >>> import keras, keras_mnm
    >>> model = keras.Sequential([keras_mnm.MNM(16, return_sequences=True), keras.layers.Dense(1)])
    >>> model(keras.random.normal((2, 5, 8))).shape == (2, 5, 1)
    True
    """

    def __init__(
        self,
        units,
        memory_units=None,
        num_heads=1,
        memory_depth=3,
        write_rule="local",
        *,
        meta_loss_weight=1.0,
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
            memory_depth=memory_depth,
            write_rule=write_rule,
            cell_name="mnm_cell",
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        self._replay = _Replay()
        weight = number("meta_loss_weight", meta_loss_weight)
        self.meta_loss = MetaLoss(weight, dtype=self.dtype_policy, name="meta_loss")

    meta_loss_weight = property(lambda self: self.meta_loss.weight)

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape, initial_state_shape)
        self.meta_loss.build()

    def call(self, sequences, initial_state=None, mask=None, training=False):
        if self._replay.tape is not None:
            self._check_replayed(initial_state, keras.tree.flatten(mask)[0])
        return super().call(sequences, initial_state, mask, training)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        # The objective is the mean over the steps of this call.
        state = self.cell.unpack_state(initial_state)
        state = state._replace(meta=ops.zeros_like(state.meta))
        last_output, outputs, states = super().inner_loop(
            sequences, self.cell.pack_state(state), mask, training
        )
        last_output = self.meta_loss(last_output, self.cell.unpack_state(states).meta)
        return last_output, outputs, states

    @property
    def metrics(self):
        # The objective's own layer shows it: Keras asks every layer, and each for those within.
        return [metric for metric in super().metrics if not isinstance(metric, RunningMetaLoss)]

    def _can_fuse(self, steps):
        cell, memory, dtype = self.cell, self.cell.memory, self.compute_dtype
        return (
            super()._can_fuse(steps)
            and not cell.recall_delay
            and all(map(_is_plain_dense, (cell.interaction, cell.rate)))
            and _is_plain_lstm(cell.controller, dtype)
            and (memory.feedback is None or _is_plain_bfpf(memory.feedback, dtype))
            and all(map(_name, (memory.activation, memory.output_activation)))
        )

    def _fused_loop(self, inputs, mask, state):
        hidden, readouts, error, final = sequence.run(
            inputs,
            mask,
            self._flat_state(state),
            self._weights(inputs.shape[-1]),
            self._spec(),
            self._tape_for(inputs),
        )
        h, c, readout, *matrices = final
        state = state._replace(
            controller=[h, c],
            readout=readout,
            memory=self.cell.memory.written(matrices),
            meta=ops.concatenate([error[:, None], ops.sum(mask, axis=0)], axis=-1),
        )
        return hidden, readouts, state

    def _check_replayed(self, initial_state, mask):
        if initial_state is not None or mask is not None or self.stateful or self.go_backwards:
            raise ValueError(
                "A tape was played from its beginning and the initial state, without a mask; call "
                f"the layer so within `replaying`. Received: initial_state={initial_state!r}, "
                f"mask={mask!r}, stateful={self.stateful}, go_backwards={self.go_backwards}."
            )

    def _tape_for(self, inputs):
        """The tape to replay, or None; a ValueError where it is of other inputs."""
        tape = self._replay.tape
        if tape is None:
            return None
        shape, numbers = tape
        if tuple(inputs.shape) != shape:
            raise ValueError(
                f"Within `replaying`, the layer takes the inputs that the tape was played with, "
                f"[T, B, features] = {list(shape)}. Received {list(inputs.shape)}; call the layer "
                "on other inputs outside of it."
            )
        return numbers

    def _flat_state(self, state):
        return [*state.controller, state.readout, *self.cell.memory.matrices(state.memory)]

    def _weights(self, features):
        cell, controller = self.cell, self.cell.controller
        feedback = cell.memory.feedback
        input_kernel, readout_kernel = controller.kernel[:features], controller.kernel[features:]
        return sequence.Weights(
            ops.concatenate([input_kernel, controller.recurrent_kernel, readout_kernel], axis=0),
            ops.convert_to_tensor(controller.bias),
            *_tensors(cell.interaction),
            *_tensors(cell.rate),
            () if feedback is None else _tensors(feedback),
        )

    def _spec(self):
        cell, memory = self.cell, self.cell.memory
        return sequence.Spec(
            cell.num_heads,
            cell.write_rule,
            memory.step_size_for(cell.num_heads),
            _name(memory.activation),
            _name(memory.output_activation),
        )

    def play(self, observe, act, world, chance, features):
        """Runs the fused form on inputs that depend on the outputs before, from the initial state.

        Args:
            observe: A function from the world's state to the step's inputs, `[B, features]`.
            act: A function from the world's state, the output `[B, units]` and the step's part of
                `chance` to the world's next state and a nest of results.
            world: The world's state at first, a nest of tensors.
            chance: A tensor `[T, B, n]` that has what is left to chance.
            features: The size of the inputs.

        Returns:
            The results, `[T, B, ...]`, and a tape for `replaying`; None where the layer has no
            fused form.
        """
        steps, batch_size = chance.shape[:2]
        if not self._can_fuse(steps):
            return None
        state = self.cell.unpack_state(self.cell.get_initial_state(batch_size))

        def act_on_output(world, hidden, readout, chance):
            output = self.cell.output_projection(ops.concatenate([hidden, readout], axis=-1))
            return act(world, output, chance)

        results, tape = sequence.play(
            observe,
            act_on_output,
            world,
            chance,
            self._flat_state(state),
            self._weights(features),
            self._spec(),
        )
        return results, ((steps, batch_size, features), tape)

    @contextlib.contextmanager
    def replaying(self, tape):
        """Within, a call on the inputs that a tape was played with computes none of them again.

        This holds for the calling thread alone.
        """
        before, self._replay.tape = self._replay.tape, tape
        try:
            yield
        finally:
            self._replay.tape = before

    def get_config(self):
        return {**super().get_config(), "meta_loss_weight": self.meta_loss_weight}


class _Replay(threading.local):
    """Holds a thread's tape, where Keras does not look for weights."""

    tape = None


def _is_plain_lstm(cell, dtype):
    return (
        type(cell) is keras.layers.LSTMCell
        and cell.variable_dtype == dtype
        and _name(cell.activation) == "tanh"
        and _name(cell.recurrent_activation) == "sigmoid"
        and cell.use_bias
        and not (cell.dropout or cell.recurrent_dropout)
    )


def _is_plain_dense(layer):
    return layer.quantization_mode is None and not layer.lora_enabled


def _is_plain_bfpf(layer, dtype):
    return (
        type(layer) is BFPF
        and layer.variable_dtype == dtype
        and _name(layer.activation) == "linear"
        and layer.use_bias
    )


def _tensors(layer):
    """Kernel and bias."""
    return [ops.convert_to_tensor(weight) for weight in (layer.kernel, layer.bias)]


def _name(activation):
    """What the fused form knows an activation by, or None: a user's `tanh` need not be Keras's."""
    for name in sequence.SIGMAS:
        if activation in (keras.activations.get(name), getattr(ops, name, None)):
            return name
    return None
