"""The maze of the paper (§4.3, Fig. 7), after Miconi et al. 2018, as pure functions."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_mnm import backend
from keras_mnm.validation import boolean, integer

ACTIONS = ("up", "down", "left", "right")
_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))

GOAL_REWARD = 10.0
WALL_REWARD = -0.1


class MazeState(NamedTuple):
    """The state of `B` mazes; cells are numbered row by row."""

    agent: object
    """The agent's cell, int32 `[B]`."""
    goal: object
    """The goal's cell, int32 `[B]`."""
    steps: object
    """Steps taken, int32 `[B]`."""
    action: object
    """The last action, int32 `[B]`; -1 before the first."""
    reward: object
    """The last reward, float32 `[B]`."""


class Maze:
    """A maze with a hidden goal, the same walls for all, and any number of them side by side.

    A border of wall surrounds `(size - 2)²` squares, with a pillar of wall wherever row and column
    are both even. The agent begins an episode in the center, the goal in a random free cell. A step
    into a wall leaves the agent where it is and costs 0.1; after any step, an agent in the goal's
    cell earns 10 and is put into a random free cell (which may be the goal's), while the goal
    stays. An episode has `episode_steps` steps, whatever happens.

    The agent sees the 3 × 3 cells around it (1 is wall), the last reward, the part of the episode
    that is over, and a constant 1. (The original has the number of the step in place of that part.)

    Nothing here keeps a state or draws a number: chance comes as uniform numbers, so that the
    functions compile on every backend and an episode can be played again.

    Args:
        size: Rows and columns, 7, 11, 15 or any other number of which the center is free.
            Defaults to `11`.
        episode_steps: Positive integer. Defaults to `250`.
        previous_action: Whether the agent sees its last action, too, as a one-hot vector.
            Defaults to `False`.

    Example:

    >>> from keras_mnm.rl import Maze
    >>> maze = Maze()
    >>> state = maze.reset([0.0, 0.99])  # goals: the first free cell and the last one
    >>> state = maze.step(state, [2, 3], [0.5, 0.5])
    >>> maze.observe(state).shape == (2, 12)
    True
    """

    def __init__(self, size=11, episode_steps=250, previous_action=False):
        if integer("size", size, minimum=7) % 4 != 3:
            raise ValueError(
                "`size` must be 7, 11, 15 or so on, by fours, for other mazes have a pillar in "
                f"their center or a broken border. Received: size={size}."
            )
        self.size = size
        self.episode_steps = integer("episode_steps", episode_steps)
        self.previous_action = boolean("previous_action", previous_action)
        self.walls = _walls(size)
        """Which cells are wall, bool `[size, size]`."""
        self.free_cells = np.flatnonzero(~self.walls).astype("int32")
        """The numbers of the free cells."""
        self.center = size * size // 2
        self.num_actions = len(ACTIONS)
        self.observation_size = 12 + (self.num_actions if previous_action else 0)
        self._targets = _targets(self.walls)
        self._patches = _patches(self.walls)

    def reset(self, uniform):
        """Begins episodes.

        Args:
            uniform: `[B]`, numbers from [0, 1) that choose the goals.

        Returns:
            A `MazeState`.
        """
        goal = self._free_cell(uniform)
        none = ops.zeros_like(goal)
        return MazeState(
            none + self.center, goal, none, none - 1, ops.zeros(ops.shape(goal), "float32")
        )

    def step(self, state, action, uniform):
        """Takes one step in each maze.

        Args:
            state: A `MazeState`.
            action: Integers `[B]`, indices into `ACTIONS`.
            uniform: `[B]`, numbers from [0, 1) that choose where those go who reach the goal.

        Returns:
            The new `MazeState`, with the reward in it.

        Raises:
            ValueError: Not one integer for each maze, or an action that is not there (unless
                compiled, when it cannot be read).
        """
        action = self._checked(action, state.agent)
        target = ops.take(self._targets, state.agent * self.num_actions + action)
        at_goal = ops.equal(target, state.goal)
        wall = ops.cast(ops.equal(target, state.agent), "float32")
        reward = WALL_REWARD * wall + GOAL_REWARD * ops.cast(at_goal, "float32")
        agent = ops.where(at_goal, self._free_cell(uniform), target)
        return MazeState(agent, state.goal, state.steps + 1, action, reward)

    def observe(self, state):
        """What the agents see, float32 `[B, observation_size]`."""
        part = ops.cast(state.steps, "float32") / self.episode_steps
        rest = [ops.stack([state.reward, part, ops.ones_like(part)], axis=-1)]
        if self.previous_action:
            rest.append(ops.one_hot(state.action, self.num_actions, dtype="float32"))
        return ops.concatenate([ops.take(self._patches, state.agent, axis=0), *rest], axis=-1)

    def _checked(self, given, agent):
        """The actions as int32 `[B]`, or a ValueError."""
        action = given if ops.is_tensor(given) else np.asarray(given)
        if "int" in str(action.dtype) and tuple(action.shape) in (tuple(agent.shape), (None,)):
            action = ops.cast(action, "int32")
            there = (action >= 0) & (action < self.num_actions)
            if not backend.is_concrete(action) or ops.all(there):
                return action
        raise ValueError(
            f"An action is an integer from 0 to {self.num_actions - 1}, an index into {ACTIONS}, "
            f"one for each of the {agent.shape[0]} maze(s). Received: {given!r}."
        )

    def _free_cell(self, uniform):
        count = len(self.free_cells)
        index = ops.cast(ops.cast(uniform, "float32") * count, "int32")
        # Rounding can carry a number just under 1 over the end.
        return ops.take(self.free_cells, ops.minimum(index, count - 1))


def checked_maze(maze):
    """A `Maze`, or a ValueError where it is none."""
    if not isinstance(maze, Maze):
        raise ValueError(f"`maze` must be a keras_mnm.rl.Maze. Received: {maze!r}.")
    return maze


def _walls(size):
    row, column = np.indices((size, size))
    border = (row % (size - 1) == 0) | (column % (size - 1) == 0)
    return border | ((row % 2 == 0) & (column % 2 == 0))


def _targets(walls):
    """The cell that each action in each cell leads to, flat `[cells * actions]`."""
    cells = np.arange(walls.size).reshape(walls.shape)
    targets = [
        np.where(np.roll(walls, move, (0, 1)), cells, np.roll(cells, move, (0, 1)))
        for move in -np.array(_MOVES)
    ]
    return np.stack(targets, axis=-1).astype("int32").ravel()


def _patches(walls):
    """The 3 × 3 cells around each cell, row by row: `[cells, 9]`."""
    shifts = [(1 - row, 1 - column) for row in range(3) for column in range(3)]
    patches = [np.roll(walls, shift, (0, 1)).ravel() for shift in shifts]
    return np.stack(patches, axis=-1).astype("float32")
