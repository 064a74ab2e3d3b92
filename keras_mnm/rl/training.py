"""Advantage actor-critic in the maze: rollout and gradient as one compiled program."""

import concurrent.futures
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_mnm import backend
from keras_mnm.rl.actor_critic import checked_model
from keras_mnm.rl.maze import checked_maze
from keras_mnm.rl.returns import a2c_losses, discounted_returns
from keras_mnm.validation import checked_seed, integer, number

_FRESH = 1
"""The last part of the seed of evaluation, whose episodes are none of training's."""


class Chance(NamedTuple):
    """All that is left to chance in `B` episodes of `T` steps: numbers from [0, 1)."""

    goals: object
    """`[B]`, see `Maze.reset`."""
    actions: object
    """`[T, B]`, see `choose`."""
    landings: object
    """`[T, B]`, see `Maze.step`."""


class Rollout(NamedTuple):
    """`B` whole episodes."""

    observations: object
    """`[B, T, features]`."""
    actions: object
    """int32 `[B, T]`."""
    rewards: object
    """`[B, T]`."""
    agents: object
    """The agent's cell before each step, int32 `[B, T]`."""
    goals: object
    """The goal's cell, int32 `[B]`."""


def draw_chance(seed, batch_size, steps):
    """The `Chance` of `batch_size` episodes by a seed, an integer under 2**32 or a tuple of them.

    NumPy takes `7` for `(7, 0)`, which is the first update of `Trainer(seed=7)`.

    >>> from keras_mnm.rl import draw_chance
    >>> draw_chance((0, 7), batch_size=2, steps=5).actions.shape
    (5, 2)
    """
    for part in seed if isinstance(seed, tuple) else (seed,):
        checked_seed(part)
    rng = np.random.default_rng(seed)
    return Chance(rng.random(batch_size, "float32"), *rng.random((2, steps, batch_size), "float32"))


def choose(logits, uniform):
    """Draws actions from a policy: int32 `[B]` by logits `[B, A]` and uniform numbers `[B]`."""
    up_to = ops.cumsum(ops.softmax(logits), axis=-1)[:, :-1]
    uniform = ops.cast(uniform, up_to.dtype)[:, None]
    return ops.sum(ops.cast(up_to <= uniform, "int32"), axis=-1)


def rollout(model, maze, chance):
    """Plays episodes from their beginning.

    Args:
        model: An `ActorCritic`; or None, for the policy that chooses all actions alike.
        maze: A `Maze`.
        chance: A `Chance` of at most as many steps as an episode has.

    Returns:
        A `Rollout`.

    Example:

    >>> from keras_mnm.rl import Maze, draw_chance, rollout
    >>> episodes = rollout(None, Maze(), draw_chance(seed=0, batch_size=3, steps=250))
    >>> episodes.rewards.shape == (3, 250)
    True
    """
    if chance.actions.shape[0] > checked_maze(maze).episode_steps:
        raise ValueError(
            f"`chance` must be of at most {maze.episode_steps} steps, an episode's. Received one "
            f"of {chance.actions.shape[0]}; draw less, or make the Maze with more `episode_steps`."
        )
    if model is not None:
        _checked_model(model, maze)
    return _play(model, maze, chance)[0]


def _play(model, maze, chance):
    """A `Rollout`, and the model's tape of it."""

    def act(mazes, logits, uniform):
        actions = choose(logits, uniform[:, 0])
        after = maze.step(mazes, actions, uniform[:, 1])
        return after, (maze.observe(mazes), actions, after.reward, mazes.agent)

    mazes = maze.reset(chance.goals)
    uniform = ops.stack([chance.actions, chance.landings], axis=-1)
    if model is None:
        logits = ops.zeros((*chance.goals.shape, maze.num_actions))
        step = lambda mazes, uniform: act(mazes, logits, uniform)
        steps, tape = backend.scan(step, mazes, uniform, uniform.shape[0])[1], None
    else:
        # What is played is no part of what is learned from: torch would keep all of it.
        fixed = [(v, ops.stop_gradient(v.value)) for v in model.variables]
        with keras.StatelessScope(fixed):
            steps, tape = model.play(maze.observe, act, mazes, uniform, maze.observation_size)
    return Rollout(*(ops.swapaxes(x, 0, 1) for x in steps), mazes.goal), tape


def total_rewards(model, maze, episodes, seed=0, parallel=100):
    """What fresh episodes earn in total, a NumPy array `[episodes]`.

    Args:
        model: An `ActorCritic`; or None, for the policy that chooses all actions alike.
        maze: A `Maze`.
        episodes: Positive integer, the number of episodes.
        seed: Of the episodes, which are others than those of any `Trainer`. Defaults to `0`.
        parallel: Positive integer, episodes side by side, which are others by this number, too.
            Defaults to `100`.

    Example:

    >>> from keras_mnm.rl import Maze, total_rewards
    >>> total_rewards(None, Maze(), episodes=250).shape
    (250,)
    """
    checked_maze(maze)
    if model is not None:  # before what is compiled, where no weights can be made
        _checked_model(model, maze)
    parallel = min(integer("parallel", parallel), integer("episodes", episodes))
    play = backend.compile(lambda chance: ops.sum(rollout(model, maze, chance).rewards, axis=1))
    seeds = ((seed, batch, _FRESH) for batch in range(-(-episodes // parallel)))
    rewards = [play(draw_chance(s, parallel, maze.episode_steps)) for s in seeds]
    return np.concatenate([ops.convert_to_numpy(r) for r in rewards])[:episodes]


def _checked_model(model, maze):
    return checked_model(model, (None, maze.episode_steps, maze.observation_size), maze.num_actions)


class A2CObjective(NamedTuple):
    """How returns are discounted and how the parts of the loss are weighed."""

    discount: float = 0.9
    """γ."""
    value: float = 0.1
    """The weight of the critic's loss."""
    concentration: float = 0.1
    """That of the sum of squared probabilities, in place of an entropy bonus."""

    def loss(self, losses, meta_loss, regularization_loss=0.0):
        """The whole loss by `A2CLosses` and what the model adds, and the parts by name.

        >>> from keras_mnm.rl import A2CLosses, A2CObjective
        >>> loss, parts = A2CObjective().loss(A2CLosses(1.0, 2.0, 3.0), meta_loss=4.0)
        >>> round(loss, 2)
        5.5
        """
        policy, value, concentration = losses
        loss = policy + self.value * value + self.concentration * concentration
        loss = loss + meta_loss + regularization_loss
        return loss, {
            "loss": loss,
            "policy_loss": policy,
            "value_loss": value,
            "concentration": concentration,
            "meta_loss": meta_loss,
        }


def checked_objective(objective):
    """An `A2CObjective`, by default the usual one, or a ValueError where it is none."""
    objective = A2CObjective() if objective is None else objective
    if not isinstance(objective, A2CObjective):
        raise ValueError(f"`objective` must be an A2CObjective. Received: {objective!r}.")
    number("discount", objective.discount, high=1.0)
    number("value", objective.value)
    number("concentration", objective.concentration)
    return objective


def prepared_optimizer(optimizer, variables):
    """A Keras optimizer, built for the variables, or a ValueError where it cannot train them."""
    if optimizer is None:
        raise ValueError(
            "`optimizer` must be a Keras optimizer or the name of one. Received: None."
        )
    optimizer = keras.optimizers.get(optimizer)
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "The optimizer must take a step in every update, which its `iterations` count. "
            "Received one with gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}; leave that out, and learn from more "
            "episodes an update."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "The optimizer must take gradients as they are, and a LossScaleOptimizer takes those "
            f"of a scaled loss. Received: {optimizer!r}; pass its inner optimizer, for losses are "
            "taken in float32 here."
        )
    if not optimizer.built:
        optimizer.build(variables)
    return optimizer


class Trainer:
    """Trains an actor-critic in the maze, on TensorFlow and JAX alike.

    An update plays `parallel` episodes side by side and learns from them. Playing and the gradient
    are one compiled program, the optimizer's step is another. The episodes of update `n` depend on
    the seed, on `n` (which the optimizer counts) and on the weights alone, so that a run goes on
    exactly where it was left.

    Args:
        model: An `ActorCritic`.
        maze: A `Maze`.
        optimizer: A Keras optimizer or the name of one, that takes a step in every update. One that
            was built before goes on where it was, so that it must be of this model.
        parallel: Positive integer, episodes an update. Defaults to `32`.
        objective: `A2CObjective`. Defaults to `A2CObjective()`. It is compiled into the update: to
            change it, make another trainer of the same model and optimizer.
        seed: Non-negative integer. Defaults to `0`.
        threads: Positive integer, in how many parts an update is computed, each by a thread of
            its own. One program does not fill several CPU cores; on an accelerator leave it at 1.
            It has to divide `parallel`. Defaults to `1`.

    Example:

    >>> import keras, keras_mnm
    >>> from keras_mnm.rl import ActorCritic, Maze, Trainer
    >>> model = ActorCritic(keras.layers.LSTM(8, return_sequences=True, return_state=True), 4)
    >>> trainer = Trainer(model, Maze(episode_steps=10), keras.optimizers.Adam(), parallel=4)
    >>> "reward" in trainer.update()
    True
    """

    def __init__(self, model, maze, optimizer, parallel=32, objective=None, seed=0, threads=1):
        self.maze = checked_maze(maze)
        self.model = _checked_model(model, maze)
        self.optimizer = prepared_optimizer(optimizer, model.trainable_variables)
        self.parallel = integer("parallel", parallel)
        self.objective = checked_objective(objective)
        self.seed = checked_seed(seed)
        self.threads = integer("threads", threads)
        if self.parallel % self.threads:
            raise ValueError(
                "`threads` must divide `parallel`, so that every thread has as many episodes. "
                f"Received: threads={threads}, parallel={parallel}."
            )
        self._compiled = backend.compile(self._play_and_learn)
        self._step = backend.compiled_step(self.optimizer, model.trainable_variables)
        self._map = map  # compiles once, in the first update; then the threads' own

    @property
    def updates(self):
        """Updates done."""
        return int(self.optimizer.iterations)

    @property
    def episodes(self):
        """Episodes seen."""
        return self.updates * self.parallel

    def update(self):
        """Plays `parallel` episodes and learns from them.

        Returns:
            A dict of floats: `reward`, the mean over episodes of their total reward, and the parts
            of the loss.
        """
        chance = draw_chance((self.seed, self.updates), self.parallel, self.maze.episode_steps)
        trained = [variable.value for variable in self.model.trainable_variables]
        fixed = [variable.value for variable in self.model.non_trainable_variables]
        parts = zip(*(np.split(x, self.threads, axis=-1) for x in chance), strict=True)
        learn = lambda part: self._compiled(trained, fixed, Chance(*part))
        results = list(self._map(learn, parts))
        mean = lambda *xs: sum(xs) / len(xs)
        logs, gradients = keras.tree.map_structure(mean, *results)
        if self.threads > 1 and self._map is map:
            self._map = concurrent.futures.ThreadPoolExecutor(self.threads).map
        self._step(gradients)
        return {name: float(ops.convert_to_numpy(value)) for name, value in logs.items()}

    def _play_and_learn(self, trained, fixed, chance):
        """The logs of the episodes, and the loss's gradient; a pure function."""
        model = self.model
        fixed = list(zip(model.non_trainable_variables, fixed, strict=True))

        def with_weights(values, function):
            values = zip(model.trainable_variables, values, strict=True)
            with keras.StatelessScope([*values, *fixed]):
                return function()

        episodes, tape = with_weights(trained, lambda: _play(model, self.maze, chance))
        returns = discounted_returns(episodes.rewards, self.objective.discount)

        def loss(values):
            def run():
                with model.replaying(tape):
                    logits, values, states = model(episodes.observations)
                losses = a2c_losses(logits, values, episodes.actions, returns)
                extra = model.meta_loss(states), model.regularization_loss()
                return self.objective.loss(losses, *extra)

            return with_weights(values, run)

        (_, parts), gradients = backend.value_and_gradient(loss, trained)
        reward = ops.mean(ops.sum(episodes.rewards, axis=1))
        return {"reward": reward, **parts}, gradients
