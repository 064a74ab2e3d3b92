"""The maze and the actor-critic for TF-Agents (needs the extra `rl`)."""

import importlib
import os
import sys
import warnings

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "TF-Agents runs on TensorFlow alone; received the Keras backend "
        f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND=tensorflow, or "
        "train with keras_mnm.rl.Trainer, whose weights this module's policies take."
    )

# TF-Agents is Keras 2 code. TensorFlow, which Keras has imported, would still give it Keras 3
# where it imports `tensorflow.keras`, and its networks would have no weights.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TF-Agents and TFP use what Python has deprecated
        legacy_keras = importlib.import_module("tf_keras.api._v2.keras")
        sys.modules.setdefault("tensorflow.keras", legacy_keras)
        import tensorflow_probability as tfp
        from tf_agents.agents import tf_agent
        from tf_agents.environments import tf_environment
        from tf_agents.networks import network
        from tf_agents.policies import actor_policy, greedy_policy
        from tf_agents.specs import tensor_spec
        from tf_agents.trajectories import StepType, TimeStep, time_step_spec
        from tf_agents.utils import common
except ImportError as error:
    raise ImportError(
        "keras_mnm.rl.tf_agents needs TF-Agents, the extra 'rl': in the clone run uv sync --extra "
        f"rl, or on Python 3.11 pip install '.[rl]' ({error})."
    ) from error
import tensorflow as tf

from keras_mnm import backend
from keras_mnm.models import from_preset
from keras_mnm.rl.actor_critic import checked_model
from keras_mnm.rl.maze import Maze, MazeState, checked_maze
from keras_mnm.rl.returns import a2c_losses, discounted_returns
from keras_mnm.rl.training import checked_objective, prepared_optimizer
from keras_mnm.validation import integer

__all__ = ["A2CAgent", "ActorCriticNetwork", "MazeEnvironment", "policy"]

_bases = network.Network.__mro__[1], tf.keras.layers.Layer
if not all(layer.__module__.startswith("tf_keras.") for layer in _bases):
    raise ImportError(
        "TF-Agents has loaded Keras 3, with which it fails in silence. Import "
        "keras_mnm.rl.tf_agents before anything touches tf.keras, or set the environment variable "
        "TF_USE_LEGACY_KERAS=1."
    )


class MazeEnvironment(tf_environment.TFEnvironment):
    """`parallel` mazes side by side, whose episodes begin and end together.

    Args:
        parallel: Positive integer, the number of mazes. Defaults to `64`.
        maze: A `keras_mnm.rl.Maze`. Defaults to `Maze()`.
        seed: Integer, of goals and of where those go who reach one. Defaults to `0`.

    Example:

    >>> from keras_mnm.rl.tf_agents import MazeEnvironment
    >>> environment = MazeEnvironment(parallel=3)
    >>> time_step = environment.step([0, 1, 2])
    >>> time_step.observation.shape
    TensorShape([3, 12])
    """

    def __init__(self, parallel=64, maze=None, seed=0):
        self.maze = checked_maze(Maze() if maze is None else maze)
        observation = tf.TensorSpec((self.maze.observation_size,), tf.float32, "observation")
        action = tensor_spec.BoundedTensorSpec((), tf.int32, 0, self.maze.num_actions - 1, "action")
        super().__init__(time_step_spec(observation), action, integer("parallel", parallel))
        self._chance = tf.random.Generator.from_seed(integer("seed", seed, minimum=0))
        self._state = MazeState(*map(tf.Variable, self.maze.reset(self._uniform())))

    def _uniform(self):
        return self._chance.uniform((self.batch_size,))

    def _current_time_step(self):
        return self._time_step(MazeState(*map(tf.identity, self._state)))

    def _reset(self):
        return self._go_to(self.maze.reset(self._uniform()))

    def _step(self, action):
        state = MazeState(*map(tf.identity, self._state))
        return tf.cond(
            state.steps[0] == self.maze.episode_steps,
            self._reset,
            lambda: self._go_to(self.maze.step(state, action, self._uniform())),
        )

    def _go_to(self, state):
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        return self._time_step(state)

    def _time_step(self, state):
        first, last = state.steps == 0, state.steps == self.maze.episode_steps
        step_type = tf.where(first, StepType.FIRST, tf.where(last, StepType.LAST, StepType.MID))
        discount = 1.0 - tf.cast(last, tf.float32)
        return TimeStep(step_type, state.reward, discount, self.maze.observe(state))


class ActorCriticNetwork(network.Network):
    """An `ActorCritic` as TF-Agents' policies take it; its state is the core's, the memory.

    The states of samples at an episode's first step are put back to its start, for MNM to φ_0.

    Args:
        observation_spec: The spec of the observations, of shape `(features,)`.
        action_spec: The spec of the actions, one integer from 0 to the model's `num_actions` - 1.
        model: A `keras_mnm.rl.ActorCritic`; a copy of the network has fresh weights.
        name: Name of the network.
    """

    def __init__(self, observation_spec, action_spec, model, name="ActorCriticNetwork"):
        model = checked_model(model, (None, None, _features(observation_spec)))
        _check_action_spec(action_spec, model.num_actions)
        states = model.get_initial_state(1)
        states = [tf.TensorSpec(state.shape[1:], state.dtype) for state in states]
        super().__init__(observation_spec, state_spec=states, name=name)
        self.model = model
        self._action_dtype = action_spec.dtype
        # Keras 3 hides its variables from tf.Module: TF-Agents finds them here.
        self._mirror = [variable.value for variable in model.variables]

    def call(self, observation, step_type, network_state=(), training=False):
        if not network_state:
            network_state = self.model.get_initial_state(tf.shape(observation)[0])
        states = self.model.reset(network_state, step_type == StepType.FIRST)
        logits, _, states = self.model.step(observation, states)
        return tfp.distributions.Categorical(logits=logits, dtype=self._action_dtype), states

    def copy(self, **kwargs):
        """A network of the same sizes with weights of its own."""
        model = type(self.model).from_config(self.model.get_config())
        return type(self)(**{**self._saved_kwargs, "model": model, **kwargs})


def _features(spec):
    """The size of observations by their spec, or a ValueError where they are no vectors."""
    if isinstance(spec, tf.TensorSpec) and spec.shape.rank == 1 and spec.shape[0]:
        return spec.shape[0]
    raise ValueError(
        "An ActorCritic takes a tf.TensorSpec of observations of one shape (features,). Received "
        f"the spec {spec}; make the environment a TFPyEnvironment where it is one of Python, and "
        "its observations one vector."
    )


def _check_action_spec(spec, num_actions):
    bounds = [getattr(spec, name, None) for name in ("minimum", "maximum")]
    fits = (
        isinstance(spec, tf.TensorSpec)
        and spec.shape.rank == 0
        and spec.dtype.is_integer
        and None not in bounds
        and [int(bound) for bound in bounds] == [0, num_actions - 1]
    )
    if not fits:
        raise ValueError(
            f"A model of {num_actions} actions takes an action spec of one integer, of shape () "
            f"and from 0 to {num_actions - 1}. Received: {spec}; make the ActorCritic with the "
            "`num_actions` of the environment."
        )


def policy(model, environment):
    """The policy of an `ActorCritic` that draws its actions: an `ActorPolicy` of TF-Agents.

    Args:
        model: A `keras_mnm.rl.ActorCritic`, or the name of a preset.
        environment: What it acts in, for the specs.

    Example:

    >>> import keras
    >>> from keras_mnm.rl import ActorCritic, tf_agents
    >>> environment = tf_agents.MazeEnvironment(parallel=3)
    >>> model = ActorCritic(keras.layers.LSTM(8, return_sequences=True, return_state=True), 4)
    >>> policy = tf_agents.policy(model, environment)
    >>> step = policy.action(environment.reset(), policy.get_initial_state(3))
    >>> step.action.shape
    TensorShape([3])
    """
    model = from_preset(model) if isinstance(model, str) else model
    return actor_policy.ActorPolicy(
        environment.time_step_spec(),
        environment.action_spec(),
        ActorCriticNetwork(environment.observation_spec(), environment.action_spec(), model),
    )


class A2CAgent(tf_agent.TFAgent):
    """Advantage actor-critic (A2C) over a recurrent core, for TF-Agents.

    `collect_policy` draws its actions, `policy` takes the likeliest. `train` takes a trajectory
    `[B, T]` that begins with an episode, or with the boundary before one, and compiles itself. Of
    any other the memory at its start is unknown, an InvalidArgumentError.
    Whole episodes side by side, with or without the boundary after them, run the core's fast form;
    where episodes start in mid-sequence, every start empties the memory, and the core is run step
    by step.

    A sequence that does not end with its episode is bootstrapped: its last step does not count,
    but for the critic's value there. So is an episode that was ended by a time limit (its last
    discount is not 0), by the critic's value at the boundary after it, or without one at its last
    step.

    The `weights` of `train` and `loss`, a number, one for each sample or for each step, multiply
    the losses of actor and critic, which stay means over all steps; the meta objective and the
    weights' regularizers do without them.

    Args:
        time_step_spec: The spec of the environment's time steps.
        action_spec: The spec of its actions, one integer.
        model: A `keras_mnm.rl.ActorCritic`, or the name of a preset.
        optimizer: A Keras optimizer or the name of one, that takes a step in every update. One that
            was built before goes on where it was, so that it must be of this model.
        objective: `keras_mnm.rl.A2CObjective`. Defaults to `A2CObjective()`. It is compiled into
            `train`: to change it, make another agent of the same model and optimizer.
        train_step_counter: A `tf.Variable` that counts updates. Defaults to the global step.
        **kwargs: `debug_summaries`, `enable_summaries` of `TFAgent`.

    Example:

    >>> import keras
    >>> from keras_mnm.rl import ActorCritic, tf_agents
    >>> environment = tf_agents.MazeEnvironment(parallel=3)
    >>> agent = tf_agents.A2CAgent(
    ...     environment.time_step_spec(),
    ...     environment.action_spec(),
    ...     ActorCritic(keras.layers.LSTM(8, return_sequences=True, return_state=True), 4),
    ...     keras.optimizers.Adam(),
    ... )
    >>> agent.initialize()
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        model,
        optimizer,
        objective=None,
        train_step_counter=None,
        **kwargs,
    ):
        self.model = from_preset(model) if isinstance(model, str) else model
        self.objective = checked_objective(objective)
        net = ActorCriticNetwork(time_step_spec.observation, action_spec, self.model)
        draws = actor_policy.ActorPolicy(time_step_spec, action_spec, net)
        super().__init__(
            time_step_spec,
            action_spec,
            greedy_policy.GreedyPolicy(draws),
            draws,
            train_sequence_length=None,
            train_step_counter=train_step_counter,
            **kwargs,
        )
        trained = self.model.trainable_variables
        self.optimizer = prepared_optimizer(optimizer, trained)
        # For the Checkpointer, as in the network.
        self._mirror = [v.value for v in (*self.model.variables, *self.optimizer.variables)]
        self._step = backend.compiled_step(self.optimizer, trained)
        self._whole = backend.compile(self._run_whole)
        # XLA does not take the gradient of a loop over a cell that splits.
        self._by_step = tf.function(self._run_by_step, autograph=False)

    def _initialize(self):
        pass

    def _train(self, experience, weights=None):
        (loss, parts), gradients = self._gradients(experience, weights)
        self._step(gradients)
        self.train_step_counter.assign_add(1)
        if self.summaries_enabled:
            common.summarize_scalar_dict(parts, self.train_step_counter, name_scope="Losses/")
        return tf_agent.LossInfo(loss, parts)

    def _loss(self, experience, weights=None, training=False):
        weights = _checked(experience, weights)
        loss, parts = self._losses(self.model.call_with_resets, experience, weights)
        return tf_agent.LossInfo(loss, parts)

    def _gradients(self, experience, weights):
        weights = _checked(experience, weights)
        boundary, first = experience.is_boundary(), experience.is_first()
        begun = tf.cumsum(tf.cast(~boundary, tf.int32), axis=1, exclusive=True) > 0
        arguments = experience._replace(policy_info=()), weights
        return tf.cond(
            tf.reduce_any(begun & first),
            lambda: self._by_step(*arguments),
            lambda: self._whole(*arguments),
        )

    def _run_whole(self, experience, weights):
        def run(observations, first, present):
            logits, values, states = self.model(observations, mask=present)
            # Absent steps repeat the value before them; the boundary after an episode has its own.
            after = ~present & (tf.cumsum(tf.cast(present, tf.int32), axis=1) > 0)
            boundary = tf.argmax(tf.cast(after, tf.int32), axis=1)
            observation = tf.gather(observations, boundary, batch_dims=1)
            value = tf.stop_gradient(self.model.step(observation, states)[1])
            return logits, tf.where(after, value[:, None], values), states

        return self._losses_and_gradients(run, experience, weights)

    def _run_by_step(self, experience, weights):
        return self._losses_and_gradients(self.model.call_with_resets, experience, weights)

    def _losses_and_gradients(self, run, experience, weights):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss, parts = self._losses(run, experience, weights)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, [v.value for v in variables], unconnected_gradients=zero)
        return (loss, parts), gradients

    def _losses(self, run, experience, weights):
        boundary = experience.is_boundary()
        present = ~boundary
        logits, values, states = run(experience.observation, experience.is_first(), present)
        discounts, rewards = (
            tf.cast(x, values.dtype) for x in (experience.discount, experience.reward)
        )
        # A boundary stands for its own value, and so does the last step before another episode or
        # the trajectory's end, unless it ends its own.
        starts = experience.is_first()[:, 1:]
        last = tf.concat([starts, tf.ones_like(boundary[:, :1])], axis=1)
        bootstrap = boundary | (last & (discounts != 0.0))
        rewards = tf.where(bootstrap, tf.stop_gradient(values), rewards)
        discounts = tf.where(bootstrap, tf.zeros_like(discounts), discounts)
        returns = discounted_returns(rewards, self.objective.discount, discounts=discounts)
        losses = a2c_losses(logits, values, experience.action, returns, ~bootstrap, weights)
        extra = self.model.meta_loss(states), self.model.regularization_loss()
        return self.objective.loss(losses, *extra)


def _checked(experience, weights):
    """The weights as a tensor `[B, T]`, `[B, 1]` or `[1, 1]`, or None.

    An error where a trajectory cannot be learned from.
    """
    shape = experience.step_type.shape
    if shape.rank != 2 or shape[1] is None:
        raise ValueError(
            "An A2CAgent learns from trajectories [B, T] of known length. Received step types of "
            f"shape {shape}; in a tf.function, set it with tf.ensure_shape, or call `train` "
            "outside of one, for it compiles itself."
        )
    tf.debugging.assert_equal(
        (experience.is_boundary() | experience.is_first())[:, 0],
        True,
        "An A2CAgent learns from trajectories that begin with an episode, or with the boundary "
        "before one, for there its memory is known. Received some that begin within an episode; "
        "collect whole ones: reset the environment before the driver runs, and give the replay "
        "buffer a max_length of at least the steps that it collects, boundaries counted in.",
    )
    if weights is None:
        return None
    # A number of Python's would be compiled anew for each value.
    weights = tf.convert_to_tensor(weights)
    return tf.reshape(weights, (-1, 1)) if weights.shape.rank < 2 else weights
