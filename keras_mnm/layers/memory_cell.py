import keras
from keras import ops

from keras_mnm.configuration import at_least_float32, copy_of, with_layers
from keras_mnm.validation import boolean, integer, one_step

_KERAS_CELLS = keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell


class MemoryCell(keras.layers.Layer):
    """A controller beside an external memory: what `MNMCell` and `SALUCell` have in common.

    A subclass makes `interaction` and `output_projection` with `_interaction` and `_dense`, and has
    `unpack_state`, which names `output`, `controller` and `readout` among the states.
    """

    def __init__(
        self,
        units,
        memory_units=None,
        num_heads=1,
        controller=None,
        tie_initial_keys=True,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        kernel_constraint=None,
        dtype=None,
        **kwargs,
    ):
        super().__init__(dtype=at_least_float32(dtype), **kwargs)
        self.units = integer("units", units)
        self.memory_units = integer("memory_units", units if memory_units is None else memory_units)
        self.num_heads = integer("num_heads", num_heads)
        self.tie_initial_keys = boolean("tie_initial_keys", tie_initial_keys)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        if controller is None:
            policy = self.dtype_policy
            controller = keras.layers.LSTMCell(self.units, dtype=policy, name="controller")
        elif not _is_cell(controller):
            raise ValueError(
                "`controller` must be a Keras RNN cell, with `state_size` and "
                "`call(inputs, states)`, for instance keras.layers.GRUCell(64). "
                f"Received: controller={controller!r}."
            )
        _check_pure(controller)
        self.controller = controller

    def _dense(self, units, name, activation=None, initializer=None):
        return keras.layers.Dense(
            units,
            activation,
            kernel_initializer=initializer or copy_of(self.kernel_initializer),
            kernel_regularizer=self.kernel_regularizer,
            kernel_constraint=self.kernel_constraint,
            dtype=self.dtype_policy,
            name=name,
        )

    def _interaction(self, vectors):
        """Eq. 1: the projection to `vectors` interaction vectors, the read and write keys first."""
        units = vectors * self.memory_units
        return self._dense(units, "interaction", initializer=self._interaction_kernel)

    def _interaction_kernel(self, shape, dtype=None):
        kernel = copy_of(self.kernel_initializer)(shape, dtype=dtype)
        keys = self.num_heads * self.memory_units
        if self.tie_initial_keys:
            kernel = ops.concatenate([kernel[:, keys : 2 * keys], kernel[:, keys:]], axis=-1)
        return kernel

    def build(self, input_shape):
        one_step(self, input_shape)
        self._build_controller(input_shape[-1])
        hidden = self.hidden_size
        self.interaction.build((None, hidden))
        self.output_projection.build((None, hidden + self.memory_units))
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: input_shape[-1]})

    def _build_controller(self, features):
        fed = features + self.memory_units
        if not self.controller.built:
            self.controller.build((None, fed))
        # The fused form would take a kernel of another size without an error.
        elif isinstance(self.controller, _KERAS_CELLS) and self.controller.kernel.shape[0] != fed:
            raise ValueError(
                f"The controller is fed the input and the last read-out, {features} + "
                f"{self.memory_units} features. Received one that was built for "
                f"{self.controller.kernel.shape[0]}, controller={self.controller!r}; pass one that "
                "is not built yet."
            )

    @property
    def hidden_size(self):
        """Size of the controller's output `h_t`."""
        size = getattr(self.controller, "output_size", None)
        return size or self._controller_state_sizes[0]

    @property
    def _controller_state_sizes(self):
        return keras.tree.flatten(self.controller.state_size)

    @property
    def output_size(self):
        """Size of the output: `units`."""
        return self.units

    def _check_states(self, states):
        """`states` as a list, or a ValueError where there are too many or too few."""
        states, sizes = list(states), self.state_size
        if len(states) != len(sizes):
            raise ValueError(
                f"This {type(self).__name__} has {len(sizes)} states of sizes {sizes}, as "
                f"`get_initial_state(batch_size)` returns them. Received {len(states)} states."
            )
        return states

    def pack_state(self, state):
        """The flat list of states that Keras carries; undoes `unpack_state`."""
        return keras.tree.flatten(tuple(state))

    def get_initial_state(self, batch_size):
        """Zeros, the empty memory; the controller's initial state may differ."""
        zeros = [ops.zeros((batch_size, n), dtype=self.compute_dtype) for n in self.state_size]
        if not hasattr(self.controller, "get_initial_state"):
            return zeros
        # In half precision it has others than `_control` gives back.
        controller = keras.tree.flatten(self.controller.get_initial_state(batch_size=batch_size))
        controller = [ops.cast(state, self.compute_dtype) for state in controller]
        return self.pack_state(self.unpack_state(zeros)._replace(controller=controller))

    def _control(self, inputs, readout, controller):
        """`h_t = g([x_t; v^r_{t-1}], h_{t-1})`, and the controller's new state."""
        size = self.controller.state_size
        if keras.tree.is_nested(size):
            controller = keras.tree.pack_sequence_as(size, controller)
        result = self.controller(ops.concatenate([inputs, readout], axis=-1), controller)
        # A controller of the user's may compute in half precision.
        hidden, new = keras.tree.map_structure(lambda x: ops.cast(x, self.compute_dtype), result)
        return hidden, new

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "memory_units": self.memory_units,
            "num_heads": self.num_heads,
            "controller": keras.saving.serialize_keras_object(self.controller),
            "tie_initial_keys": self.tie_initial_keys,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**with_layers(config, "controller", "feedback"))


def _is_cell(controller):
    return (
        isinstance(controller, keras.layers.Layer)
        and hasattr(controller, "state_size")
        and not isinstance(controller, keras.layers.RNN)
    )


def _check_pure(controller):
    """A ValueError where a cell, or one of those stacked in it, has dropout."""
    for cell in getattr(controller, "cells", ()):
        _check_pure(cell)
    rates = {name: getattr(controller, name, 0) for name in ("dropout", "recurrent_dropout")}
    if any(rates.values()):
        found = ", ".join(f"{name}={rate}" for name, rate in rates.items())
        raise ValueError(
            "`controller` must be pure: a cell with dropout keeps a mask between calls. Put a "
            "keras.layers.Dropout before or after the layer instead. Received: "
            f"controller={controller!r} with {found}."
        )
