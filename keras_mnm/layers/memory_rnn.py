import inspect

import keras
from keras import ops

from keras_mnm.configuration import at_least_float32, with_layers
from keras_mnm.validation import fits, known_features


class MemoryRNN(keras.layers.RNN):
    """A recurrent layer that makes its cell by itself and can run it faster than a plain loop.

    What `MNM`, `SALU` and `Plastic` have in common. A subclass names its cell's class, has
    `_can_fuse`, which tells whether its fast form fits, and `_fused_loop`, which is that form.
    """

    def __init_subclass__(cls, cell_class=None, **kwargs):
        super().__init_subclass__(**kwargs)
        if cell_class is not None:
            parameters = inspect.signature(cell_class.__init__).parameters
            others = ("self", "dtype", "kwargs")  # a layer has a dtype of its own
            cls._cell_class = cell_class
            cls._cell_options = [name for name in parameters if name not in others]
            for name in cls._cell_options:
                setattr(cls, name, _cell_option(name))

    def __init__(self, *, name=None, dtype=None, trainable=True, cell_name, **kwargs):
        layer = {"name": name, "dtype": at_least_float32(dtype), "trainable": trainable}
        options = {key: kwargs.pop(key) for key in self._cell_options if key in kwargs}
        cell = self._cell_class(**options, **{**layer, "name": cell_name})
        super().__init__(cell, **kwargs, **layer)

    def build(self, sequences_shape, initial_state_shape=None):
        if len(sequences_shape) != 3:
            raise ValueError(
                f"{type(self).__name__} takes sequences of shape [B, T, features]. Received shape "
                f"{tuple(sequences_shape)}."
            )
        known_features(self, sequences_shape)
        super().build(sequences_shape, initial_state_shape)
        # The fused form would take inputs of another size without an error, for it cuts the
        # controller's kernel by theirs.
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: sequences_shape[-1]})

    def call(self, sequences, initial_state=None, mask=None, training=False):
        mask = keras.tree.flatten(mask)[0]  # one for each initial state may follow
        self._check_mask(mask, sequences.shape[:2])
        self._check_initial_state(initial_state, sequences.shape[0])
        return super().call(sequences, initial_state, mask, training)

    def _check_mask(self, mask, expected):
        if mask is not None and not fits(mask.shape[:2], expected):
            raise ValueError(
                f"`mask` must have shape [B, T] = {list(expected)}, as the sequences have. "
                f"Received a mask of shape {tuple(mask.shape)}."
            )

    def _check_initial_state(self, states, batch_size):
        if states is None:
            return
        expected = [(batch_size, size) for size in self.cell.state_size]
        shapes = [tuple(getattr(state, "shape", ("no tensor",))) for state in states]
        if len(shapes) != len(expected) or not all(map(fits, shapes, expected)):
            raise ValueError(
                f"`initial_state` must be {len(expected)} tensors [B, size] with B = {batch_size} "
                f"and the sizes {self.cell.state_size}, in a flat list as `return_state=True` "
                "returned them (and a cell's `pack_state` makes it). Received shapes "
                f"{shapes}."
            )

    def reset_state(self):
        """Gives a stateful layer its initial states again, which need not be zeros."""
        if self.states is not None:
            initial = self.get_initial_state(self.states[0].shape[0])
            for variable, value in zip(self.states, initial, strict=True):
                variable.assign(value)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if mask is not None:
            mask = ops.reshape(ops.cast(mask, "bool"), (*ops.shape(sequences)[:2], 1))
            # NaN at masked steps must reach nothing, gradients neither.
            sequences = ops.where(mask, sequences, ops.zeros_like(sequences))
        if self.go_backwards:
            sequences = ops.flip(sequences, 1)
            mask = None if mask is None else ops.flip(mask, 1)
        loop = self._fast_loop if self._can_fuse(sequences.shape[1]) else self._plain_loop
        outputs, states = loop(sequences, initial_state, mask, training)
        if mask is not None:
            begun = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
            if not self.return_sequences:
                mask, begun = mask[:, -1:], begun[:, -1:]
            # Masked steps repeat the output before them, and that is the first state at first.
            outputs = ops.where(begun, outputs, initial_state[0][:, None])
            states = [outputs[:, -1], *states[1:]]
            if self.zero_output_for_mask:
                outputs = outputs * ops.cast(mask, outputs.dtype)
        return outputs[:, -1], outputs, states

    def _fast_loop(self, sequences, initial_state, mask, training):
        """Runs the sequence, forwards.

        Returns:
            The outputs, `[B, T, units]`, or without `return_sequences` the last one,
            `[B, 1, units]`; and the states after the sequence.
        """
        inputs = ops.cast(ops.transpose(sequences, (1, 0, 2)), self.compute_dtype)
        if mask is None:
            mask = ops.ones_like(inputs[..., :1])
        else:
            mask = ops.cast(ops.transpose(mask, (1, 0, 2)), inputs.dtype)
        state = self.cell.unpack_state(initial_state)
        hidden, readouts, state = self._fused_loop(inputs, mask, state)
        if not self.return_sequences:
            hidden, readouts = hidden[-1:], readouts[-1:]
        outputs = self.cell.output_projection(ops.concatenate([hidden, readouts], axis=-1))
        states = self.cell.pack_state(state._replace(output=outputs[-1]))
        return ops.transpose(outputs, (1, 0, 2)), states

    def _plain_loop(self, sequences, initial_state, mask, training):
        """As `_fast_loop`, by Keras's loop over the cell."""
        # Without `zero_output_for_mask` and `go_backwards`, which go wrong where Keras unrolls.
        plain = keras.layers.RNN(
            self.cell,
            return_sequences=self.return_sequences,
            stateful=self.stateful,
            unroll=self.unroll,
            name=self.name,
            dtype=self.dtype_policy,
        )
        last, outputs, states = plain.inner_loop(sequences, initial_state, mask, training)
        return outputs if self.return_sequences else last[:, None], states

    def _can_fuse(self, steps):
        """Whether `_fused_loop` fits the layer and this length, None where it is unknown."""
        return bool(steps) and not self.unroll

    def _fused_loop(self, inputs, mask, state):
        """Runs the sequence.

        Args:
            inputs: `[T, B, features]`, zeros at masked steps.
            mask: `[T, B, 1]`, 1 at the steps that count and 0 at the masked ones.
            state: The cell's state, by name.

        Returns:
            Hidden states `[T, B, U]` and read-outs `[T, B, D]`, which masked steps repeat, and the
            state after the sequence; the caller puts the output in.
        """
        raise NotImplementedError

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        return {**config, **{name: cell[name] for name in self._cell_options}}

    @classmethod
    def from_config(cls, config):
        return cls(**with_layers(config, "controller", "feedback"))


def _cell_option(name):
    return property(lambda self: getattr(self.cell, name))
