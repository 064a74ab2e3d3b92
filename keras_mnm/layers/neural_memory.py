import keras
from keras import initializers, ops

from keras_mnm import ops as mnm_ops
from keras_mnm.configuration import at_least_float32, copy_of, with_layers
from keras_mnm.layers.bfpf import BFPF
from keras_mnm.validation import boolean, finite, fits, in_unit_interval, integer, number, one_of

WRITE_RULES = ("local", "gradient")


@keras.saving.register_keras_serializable(package="keras_mnm")
class NeuralMemory(keras.layers.Layer):
    """A memory that is itself a small neural network (§3.2 to §3.4).

    The memory function has `depth` bias-free layers, `z^l = σ(M^l z^{l-1})`. Reading is a forward
    pass. Writing binds keys to values by changing the weights `M^l`, one shot a write:

    - `write_rule="local"` (MNM-p, Eq. 4): `M^l ← M^l - η β (z^l - ẑ^l) (z^{l-1})ᵀ` in all layers
      at once, towards the activations `ẑ^l` that the feedback prediction functions expect;
    - `write_rule="gradient"` (MNM-g, Eqs. 2 and 3): a gradient step on the squared error of the
      read-out, `φ ← φ - β ∇ L`, by a nested `tf.GradientTape` on TensorFlow.

    Every sample starts from φ_0, one fixed random network for all, which is saved with the layer's
    weights, and has a state of its own: `depth` tensors `[B, units²]`, each a flat matrix, with
    what was written, `M^l - M^l_0`. So zeros are the empty memory, for all samples or for one.

    Args:
        units: Positive integer, the size `D` of keys, values and hidden layers.
        depth: Positive integer, the number of layers `L`. Defaults to `3`.
        write_rule: `"local"` or `"gradient"`. Defaults to `"local"`.
        step_size: Number η of at least 0. Defaults to `None`, which means `2 / (H * units)`, the
            gradient of a mean over heads and units; the memory then stays bounded for every rate.
            `1.0` is Eq. 4 as printed, `2 / H` are Eqs. 2 and 3 as printed: both are unstable.
        activation: σ of all layers but the last. Defaults to `"tanh"`.
        output_activation: σ of the last layer. Defaults to `"linear"`; the paper's text has
            `"tanh"`.
        initializer: Initializer of the matrices of φ_0. Defaults to `"orthogonal"`,
            which keeps the length of keys through the layers. One with an integer as its seed
            makes all of them alike; give it a `keras.random.SeedGenerator`.
        train_initial_memory: Whether φ_0 is trained. Defaults to `False`: the paper found that
            training it overfits.
        feedback: The feedback prediction functions of the local rule, a layer that maps
            `[N, units]` to `[N, depth * units]` and draws no random numbers. Defaults to `None`,
            which makes a `BFPF`.
        dtype: The dtype policy. Half precisions, mixed or not, become `float32`, for a memory sums
            up small changes; so does `float64` on JAX and torch, where Keras rounds it. Defaults to
            `None`, Keras's global policy.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `trainable`).

    Call arguments:
        keys: `[B, H, units]`.
        states: The memory, `depth` tensors `[B, units²]`. Defaults to φ_0.

    Returns:
        The read-out values, `[B, H, units]`, as `read` does.

    Example:

    >>> import keras, keras_mnm
    >>> memory = keras_mnm.NeuralMemory(units=16, write_rule="gradient")
    >>> key, value = keras.random.uniform((2, 1, 16)), keras.random.uniform((2, 1, 16))
    >>> states = memory.get_initial_state(batch_size=2)
    >>> before = memory.recall_error(key, value, states)
    >>> states = memory.write(key, value, rate=1.0, states=states)
    >>> after = memory.recall_error(key, value, states)
    >>> bool(keras.ops.all(after < before))
    True
    """

    def __init__(
        self,
        units,
        depth=3,
        write_rule="local",
        step_size=None,
        activation="tanh",
        output_activation="linear",
        initializer="orthogonal",
        train_initial_memory=False,
        feedback=None,
        dtype=None,
        **kwargs,
    ):
        super().__init__(dtype=at_least_float32(dtype), **kwargs)
        self.units = integer("units", units)
        self.depth = integer("depth", depth)
        self.write_rule = one_of("write_rule", write_rule, WRITE_RULES)
        # None means 2 / (heads * units).
        self.step_size = step_size if step_size is None else number("step_size", step_size)
        self.activation = keras.activations.get(activation)
        self.output_activation = keras.activations.get(output_activation)
        self.initializer = initializers.get(initializer)
        self.train_initial_memory = boolean("train_initial_memory", train_initial_memory)
        if write_rule == "gradient" and feedback is not None:
            raise ValueError(
                "`feedback` belongs to the local write rule; the gradient rule has no feedback "
                "prediction functions. Pass write_rule='local', or leave `feedback` out. "
                f"Received: write_rule={write_rule!r}, feedback={feedback!r}."
            )
        if not (feedback is None or isinstance(feedback, keras.layers.Layer)):
            raise ValueError(
                "`feedback` must be a Keras layer that maps [N, units] to [N, depth * units], for "
                f"instance a keras.Sequential. Received: feedback={feedback!r}."
            )
        if write_rule == "local" and feedback is None:
            feedback = BFPF(self.units, self.depth, dtype=self.dtype_policy, name="feedback")
        self.feedback = feedback

    def build(self, keys_shape=None):
        self._check_keys_shape(keys_shape or (None, None, self.units))
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: self.units})
        self.initial_memory = [
            self.add_weight(
                shape=(self.units, self.units),
                initializer=copy_of(self.initializer),
                trainable=self.train_initial_memory,
                autocast=False,  # `write` and its like are called within other layers, too
                name=f"initial_memory_{layer}",
            )
            for layer in range(1, self.depth + 1)
        ]
        for weight in self.initial_memory:  # a list of them is lost on tf.train.Checkpoint
            setattr(self, weight.name, weight)
        if self.feedback is not None:
            values_shape = (None, self.units)
            if not self.feedback.built:
                self.feedback.build(values_shape)
            predictions_shape = tuple(self.feedback.compute_output_shape(values_shape))
            if predictions_shape[-1] != self.depth * self.units:
                raise ValueError(
                    f"`feedback` must map [N, {self.units}] to [N, depth * units = "
                    f"{self.depth * self.units}], one prediction for each memory layer. "
                    f"Received a layer with output shape {predictions_shape}."
                )

    @property
    def state_size(self):
        """Sizes of the state tensors: `units²` for each of the `depth` layers."""
        return [self.units**2] * self.depth

    def get_initial_state(self, batch_size):
        """The empty memory, φ_0 for every sample: zeros, `depth` tensors `[batch_size, units²]`."""
        if not self.built:  # before `write` and its like are compiled, where no weight can be made
            self.build()
        return [ops.zeros((batch_size, n), dtype=self.compute_dtype) for n in self.state_size]

    def call(self, keys, states=None):
        if states is None:
            states = self.get_initial_state(ops.shape(keys)[0])
        self._check_states_shapes(states, keys.shape[0])
        return self.recall(keys, states)

    def compute_output_shape(self, keys_shape):
        return tuple(keys_shape)

    def read(self, keys, states):
        """Reads the values stored under `keys`: `f_φ(k)`.

        Args:
            keys: `[B, H, units]`.
            states: The memory, `depth` tensors `[B, units²]`.

        Returns:
            Values, `[B, H, units]`.
        """
        keys = self._checked("keys", keys)
        return self.recall(keys, self._checked_states(states, keys.shape[0]))

    def write(self, keys, values, rate, states):
        """Binds `keys` to `values` and returns the changed memory.

        Args:
            keys: `[B, H, units]`.
            values: `[B, H, units]`.
            rate: How strongly to write, in [0, 1]: a number, `[B]` or `[B, 1]`, or `[B, depth]`
                with one rate for each layer. At 0 nothing changes.
            states: The memory before the write, `depth` tensors `[B, units²]`.

        Returns:
            The memory after the write, in the same form.
        """
        keys, values = self._checked_pair(keys, values)
        states = self._checked_states(states, keys.shape[0])
        rate = self._tensor("rate", rate)
        in_unit_interval("rate", rate)
        if rate.ndim < 2:
            rate = ops.reshape(rate, (-1, 1))
        of_layers = rate.ndim == 2 and rate.shape[-1] in (1, self.depth)
        if not of_layers or not any(fits(rate.shape[:1], (n,)) for n in (1, keys.shape[0])):
            raise ValueError(
                "`rate` must be a number, [B], [B, 1], or [B, depth] with one rate for each of "
                f"the {self.depth} memory layers, with B = {keys.shape[0]} as in `keys`. Received "
                f"a rate of shape {tuple(rate.shape)}."
            )
        return self.bind(keys, values, rate, states)

    def recall_error(self, keys, values, states):
        """How far the memory is from returning `values` for `keys`: `‖f_φ(k) - v‖²`.

        Args:
            keys: `[B, H, units]`.
            values: `[B, H, units]`.
            states: The memory, `depth` tensors `[B, units²]`.

        Returns:
            The mean over heads and units for each sample, `[B]`.
        """
        keys, values = self._checked_pair(keys, values)
        states = self._checked_states(states, keys.shape[0])
        return mnm_ops.squared_error(self.recall(keys, states), values)

    def recall(self, keys, states):
        """`read` without the checks of its arguments, for use inside a compiled step."""
        return mnm_ops.memory_activations(
            keys, self.matrices(states), self.activation, self.output_activation
        )[-1]

    def bind(self, keys, values, rate, states):
        """`write` without the checks of its arguments; `rate` is `[B, 1]` or `[B, depth]`."""
        matrices = self.matrices(states)
        rates = [rate[:, layer % rate.shape[-1], None, None] for layer in range(self.depth)]
        step_size = self.step_size_for(keys.shape[1])
        sigmas = (self.activation, self.output_activation)
        if self.write_rule == "local":
            activations = mnm_ops.memory_activations(keys, matrices, *sigmas)
            targets = self._expected_activations(values)
            changes = mnm_ops.local_change(activations, targets, rates, step_size)
        else:
            changes = mnm_ops.gradient_change(matrices, keys, values, rates, step_size, *sigmas)
        return [
            state - ops.reshape(change, (-1, self.units**2))
            for state, change in zip(states, changes, strict=True)
        ]

    def step_size_for(self, num_heads):
        """η of a write with `num_heads` heads."""
        if self.step_size is None:
            return mnm_ops.default_step_size(num_heads, self.units)
        return self.step_size

    def _expected_activations(self, values):
        """`[ẑ^1, ..., ẑ^L]`, each `[B, H, D]`, for target values `[B, H, D]`."""
        # Heads join the batch: a product of rank 3 with unknown batch size has no gradient under
        # XLA on TensorFlow.
        heads = values.shape[1]
        predictions = self.feedback(ops.reshape(values, (-1, self.units)))
        predictions = ops.cast(predictions, self.compute_dtype)
        return [
            ops.reshape(prediction, (-1, heads, self.units))
            for prediction in ops.split(predictions, self.depth, axis=-1)
        ]

    def matrices(self, states):
        """The memory's weights, φ_0 and what was written: `depth` matrices `[B, units, units]`."""
        if not self.built:
            self.build()
        return [
            ops.cast(initial, state.dtype) + ops.reshape(state, (-1, self.units, self.units))
            for initial, state in zip(self.initial_memory, states, strict=True)
        ]

    def written(self, matrices):
        """The states of a memory with these weights; undoes `matrices`."""
        return [
            ops.reshape(matrix - ops.cast(initial, matrix.dtype), (-1, self.units**2))
            for initial, matrix in zip(self.initial_memory, matrices, strict=True)
        ]

    def _checked(self, name, tensor):
        tensor = self._tensor(name, tensor)
        self._check_keys_shape(tensor.shape, name)
        finite(name, tensor)
        return tensor

    def _tensor(self, name, numbers):
        if keras.utils.is_keras_tensor(numbers):
            raise ValueError(
                f"`read`, `write` and `recall_error` take numbers. Received for `{name}` a "
                "symbolic input, of which a model would not know that it uses the memory's "
                "weights. Call the layer, or use the three within the `call` of one of your own."
            )
        return ops.convert_to_tensor(numbers, dtype=self.compute_dtype)

    def _checked_pair(self, keys, values):
        keys, values = self._checked("keys", keys), self._checked("values", values)
        if not fits(keys.shape, values.shape):
            raise ValueError(
                "`keys` and `values` must have the same shape [B, H, units]. Received keys of "
                f"shape {tuple(keys.shape)} and values of shape {tuple(values.shape)}."
            )
        return keys, values

    def _checked_states(self, states, batch_size):
        if not isinstance(states, (list, tuple)):
            raise ValueError(
                f"`states` must be a list of {self.depth} tensors, as "
                f"`get_initial_state(batch_size)` returns them. Received: states={states!r}."
            )
        states = [self._tensor("states", state) for state in states]
        self._check_states_shapes(states, batch_size)
        for state in states:
            finite("states", state)
        return states

    def _check_states_shapes(self, states, batch_size):
        shapes = [tuple(state.shape) for state in states]
        expected = [(batch_size, self.units**2)] * self.depth
        if len(shapes) != self.depth or not all(map(fits, shapes, expected)):
            raise ValueError(
                f"`states` must be {self.depth} tensors of shape [{batch_size}, {self.units**2}], "
                "as `get_initial_state(batch_size)` returns them, one row for each sample of "
                f"`keys`. Received shapes {shapes}."
            )

    def _check_keys_shape(self, shape, name="keys"):
        if len(shape) != 3 or shape[-1] != self.units:
            raise ValueError(
                f"`{name}` must have shape [B, H, {self.units}] (batch, heads, units). "
                f"Received shape {tuple(shape)}."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "depth": self.depth,
            "write_rule": self.write_rule,
            "step_size": self.step_size,
            "activation": keras.activations.serialize(self.activation),
            "output_activation": keras.activations.serialize(self.output_activation),
            "initializer": initializers.serialize(self.initializer),
            "train_initial_memory": self.train_initial_memory,
            "feedback": keras.saving.serialize_keras_object(self.feedback),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**with_layers(config, "feedback"))
