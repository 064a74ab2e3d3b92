"""Actor and critic over one recurrent core."""

import contextlib

import keras
from keras import ops

from keras_mnm import backend
from keras_mnm import ops as mnm_ops
from keras_mnm.configuration import at_least_float32, with_layers
from keras_mnm.layers.mnm import MNM
from keras_mnm.layers.mnm_cell import MNMCell
from keras_mnm.validation import integer


@keras.saving.register_keras_serializable(package="keras_mnm")
class ActorCritic(keras.Model):
    """A policy and a value over one recurrent core, for whole episodes or one step at a time.

    Calling the model runs the core over a sequence, in its fast form; `step` runs the core's cell
    once. Both have the same weights, and the same numbers but for rounding. The states are the
    core's own, `get_initial_state` those at an episode's start: for `keras_mnm.MNM`, φ_0.

    Training adds the losses of the weights' regularizers, and no others: what a core adds by
    `add_loss` or an `activity_regularizer` is left out. A dropout of the core has no effect, for
    what is learned from has to be what was played.

    Args:
        core: A recurrent Keras layer that runs one cell forwards, with `return_sequences=True` and
            `return_state=True`, for instance
            `keras_mnm.MNM(200, 100, 3, return_sequences=True, return_state=True)`.
        num_actions: Positive integer, the number of actions.
        **kwargs: Arguments of `keras.Model` (`name`, `dtype`).

    Call arguments:
        observations: `[B, T, features]`.
        states: List of states to start from. Defaults to `None`, an episode's start.
        mask: Boolean `[B, T]`; the other steps leave the states as they are. Defaults to `None`,
            all steps. With `states`, Keras does not hand on the mask of a layer before: pass it.

    Returns:
        Logits `[B, T, num_actions]`, values `[B, T]`, and the list of states after the last step.

    Example:

    >>> import keras, keras_mnm
    >>> from keras_mnm.rl import ActorCritic
    >>> core = keras_mnm.MNM(16, return_sequences=True, return_state=True)
    >>> model = ActorCritic(core, num_actions=4)
    >>> logits, values, states = model(keras.random.normal((2, 5, 12)))
    >>> logits.shape == (2, 5, 4), values.shape == (2, 5)
    (True, True)
    >>> logits, values, states = model.step(keras.random.normal((2, 12)), states)
    >>> logits.shape == (2, 4), values.shape == (2,)
    (True, True)
    """

    def __init__(self, core, num_actions, **kwargs):
        # Observations reach the core as `step` gives them to its cell, whatever the policy's dtype.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        if not (getattr(core, "return_sequences", False) and getattr(core, "return_state", False)):
            raise ValueError(
                "`core` must be a recurrent layer that returns all its outputs and its states: "
                f"pass return_sequences=True and return_state=True to it. Received: {core!r}."
            )
        if getattr(core, "go_backwards", False):
            raise ValueError(
                "`core` must run forwards, as an agent does: leave out go_backwards=True. "
                f"Received: {core!r}."
            )
        if getattr(core, "stateful", False):
            raise ValueError(
                "`core` must begin an episode at its initial states, which the model is given and "
                f"returns by itself: leave out stateful=True. Received: {core!r}."
            )
        if not getattr(core, "supports_jit", True):
            raise ValueError(
                "`core` must compile with XLA, as training does, and cuDNN does not: pass "
                f"use_cudnn=False to it. Received: {core!r}."
            )
        if not _has_flat_states(core):
            raise ValueError(
                "`core` must run one cell, with a list of states `[B, n]`: an `ActorCritic` steps "
                "it by itself. Stacked cells of several states each have nested ones; write a cell "
                f"that runs them. Received: {core!r}."
            )
        self.core = core
        self.num_actions = integer("num_actions", num_actions)
        heads = {"dtype": at_least_float32(self.dtype_policy)}
        self.policy = keras.layers.Dense(num_actions, name="policy", **heads)
        self.value = keras.layers.Dense(1, name="value", **heads)

    def build(self, observations_shape):
        if len(observations_shape) != 3:
            raise ValueError(
                "An ActorCritic takes observations of shape [B, T, features], and its `step` those "
                f"of one step. Received shape {tuple(observations_shape)}."
            )
        self._observations_shape = tuple(observations_shape)
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: observations_shape[-1]})
        if not self.core.built:  # as it is when it was loaded
            self.core.build(observations_shape)
        outputs_shape = self.core.compute_output_shape(observations_shape)[0]
        self.policy.build(outputs_shape)
        self.value.build(outputs_shape)

    def get_initial_state(self, batch_size):
        """The states at an episode's start."""
        return keras.tree.flatten(self.core.get_initial_state(batch_size))

    def call(self, observations, states=None, mask=None):
        states = None if states is None else list(states)
        outputs, *states = self.core(observations, initial_state=states, mask=mask)
        return *self._heads(outputs), states

    def call_with_resets(self, observations, first, mask=None):
        """Calls the model on sequences in which episodes start anywhere.

        Slower than a call, since it takes one step after another.

        Args:
            observations: `[B, T, features]`.
            first: Boolean `[B, T]`, the steps before which the states are emptied.
            mask: As in a call.

        Returns:
            As a call; the meta objective is that of all steps.
        """

        def step(states, inputs):
            observations, first, mask = inputs
            before = self.reset(states, first, keep=True)
            logits, values, after = self.step(observations, before)
            return _where(mask, after, before), (logits, values)

        mask = ops.ones_like(first) if mask is None else mask
        inputs = [ops.swapaxes(x, 0, 1) for x in (observations, first, mask)]
        start = self.get_initial_state(ops.shape(observations)[0])
        states, outputs = backend.scan(step, start, inputs, observations.shape[1])
        logits, values = (ops.swapaxes(x, 0, 1) for x in outputs)
        return logits, values, states

    def step(self, observations, states):
        """One step: logits `[B, num_actions]`, values `[B]`, and the list of new states."""
        if not self.built:
            self.build((None, None, observations.shape[-1]))
        outputs, states = self.core.cell(observations, list(states))
        return *self._heads(outputs), keras.tree.flatten(states)

    def play(self, observe, act, world, chance, features):
        """Plays whole episodes: each step's observations depend on what was done before.

        Args:
            observe: A function from the world's state to observations `[B, features]`.
            act: A function from the world's state, logits `[B, num_actions]` and the step's part
                of `chance` to the world's next state and a nest of results.
            world: The world's state at first, a nest of tensors.
            chance: A tensor `[T, B, n]` that has what is left to chance.
            features: The size of the observations.

        Returns:
            The results, `[T, B, ...]`, and a tape for `replaying`, None if the core has none.
        """
        if isinstance(self.core, MNM):
            act_on_output = lambda world, output, chance: act(world, self.policy(output), chance)
            played = self.core.play(observe, act_on_output, world, chance, features)
            if played is not None:
                return played

        def step(carry, chance):
            world, states = carry
            logits, _, states = self.step(observe(world), states)
            world, results = act(world, logits, chance)
            return (world, states), results

        start = (world, self.get_initial_state(chance.shape[1]))
        return backend.scan(step, start, chance, chance.shape[0])[1], None

    def replaying(self, tape):
        """Within, a call on the observations that a tape was played with takes less time."""
        return contextlib.nullcontext() if tape is None else self.core.replaying(tape)

    def reset(self, states, first, keep=False):
        """Puts the samples with `first` (boolean `[B]`) back to an episode's start.

        With `keep` the sums of the meta objective go on.
        """
        initial = self.get_initial_state(ops.shape(first)[0])
        if keep and self._has_meta_objective:
            meta = self.core.cell.unpack_state(states).meta
            initial = self.core.cell.unpack_state(initial)._replace(meta=meta)
            initial = self.core.cell.pack_state(initial)
        return _where(first, initial, states)

    def _heads(self, outputs):
        return self.policy(outputs), ops.squeeze(self.value(outputs), axis=-1)

    def meta_loss(self, states):
        """The meta objective (Eq. 5) of the sequence that ended in these states, a scalar.

        Zero for a core that has none. Its weight is the core's `meta_loss_weight`, or 1.
        """
        dtype = self.policy.compute_dtype  # that of the other losses
        if not self._has_meta_objective:
            return ops.zeros((), dtype)
        total, count = mnm_ops.meta_objective(self.core.cell.unpack_state(states).meta)
        weight = getattr(self.core, "meta_loss_weight", 1.0)
        return ops.cast(weight * total / ops.maximum(count, 1.0), dtype)

    def regularization_loss(self):
        """The sum of the losses of the weights' regularizers, a scalar; zero without any."""
        losses = [v.regularizer(v) for v in self.trainable_variables if v.regularizer]
        return sum(losses, ops.zeros((), self.policy.compute_dtype))

    @property
    def _has_meta_objective(self):
        return isinstance(self.core.cell, MNMCell)

    def get_config(self):
        return {
            **super().get_config(),
            "core": keras.saving.serialize_keras_object(self.core),
            "num_actions": self.num_actions,
        }

    def get_build_config(self):
        """What `build_from_config` makes the weights by when a saved model is loaded."""
        return {"observations_shape": self._observations_shape} if self.built else None

    def build_from_config(self, config):
        """Makes the weights of a saved model."""
        self.build(tuple(config["observations_shape"]))

    @classmethod
    def from_config(cls, config):
        return cls(**with_layers(config, "core"))


def checked_model(model, observations_shape, num_actions=None):
    """An `ActorCritic`, built for what it acts in, or a ValueError where it is for another one."""
    if not isinstance(model, ActorCritic):
        raise ValueError(
            f"`model` must be a keras_mnm.rl.ActorCritic. Received: {model!r}; put a recurrent "
            "layer into one, ActorCritic(layer, num_actions=...), or take a preset of one by "
            "keras_mnm.from_preset."
        )
    if num_actions not in (None, model.num_actions):
        raise ValueError(
            f"The model must have the {num_actions} actions of what it acts in. Received a model "
            f"of {model.num_actions}; make the ActorCritic with num_actions={num_actions}."
        )
    if not model.built:
        model.build(observations_shape)
    size = model.get_build_config()["observations_shape"][-1]
    if size != observations_shape[-1]:
        raise ValueError(
            f"The model must take the {observations_shape[-1]} numbers that are seen at a step. "
            f"Received one that was built for {size}; make a new one, which is built for what it "
            "acts in, or give it the environment that it was made for."
        )
    return model


def _has_flat_states(core):
    sizes = getattr(getattr(core, "cell", None), "state_size", None)
    sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
    return all(isinstance(size, int) for size in sizes)


def _where(condition, ones, others):
    """The states of the samples with `condition` from `ones`, the rest from `others`."""
    pairs = zip(ones, others, strict=True)
    return [ops.where(condition[:, None], one, other) for one, other in pairs]
