"""The maze for Gymnasium (needs the extra `gym`): `keras_mnm/Maze-v0`.

Importing this module registers it, so that agents from elsewhere can be tried in it.
"""

try:
    import gymnasium
except ImportError as error:
    raise ImportError(
        "keras_mnm.rl.gymnasium needs Gymnasium, the extra 'gym': in the clone run pip install "
        f"'.[gym]' or uv sync --extra gym ({error})."
    ) from error
import numpy as np
from keras import ops

from keras_mnm.rl.maze import Maze
from keras_mnm.validation import integer

NAME = "keras_mnm/Maze-v0"


class MazeEnv(gymnasium.Env):
    """One maze. An episode is terminated after `episode_steps` steps.

    Args:
        render_mode: `"rgb_array"`, for pictures by `render` (needs Pillow), or None, the default.
        **kwargs: Arguments of `keras_mnm.rl.Maze`.

    Example:

    >>> import gymnasium
    >>> import keras_mnm.rl.gymnasium
    >>> environment = gymnasium.make("keras_mnm/Maze-v0")
    >>> observation, info = environment.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = environment.step(2)
    >>> observation.shape
    (12,)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(self, render_mode=None, **kwargs):
        self.maze = Maze(**kwargs)
        self.render_mode = _render_mode(render_mode, self.metadata["render_modes"])
        self._state = None
        size = self.maze.observation_size
        low, high = np.zeros(size, "float32"), np.ones(size, "float32")
        low[9], high[9] = -0.1, 10.0  # the last reward
        self.observation_space = gymnasium.spaces.Box(low, high)
        self.action_space = gymnasium.spaces.Discrete(self.maze.num_actions)

    def reset(self, *, seed=None, options=None):
        """Begins an episode: the first observation, and an empty dict."""
        super().reset(seed=seed)
        self._state = self.maze.reset(self._uniform())
        return self._observation(), {}

    def step(self, action):
        """One step: observation, reward, whether the episode is over, False, and an empty dict."""
        if self._state is None or int(self._state.steps[0]) == self.maze.episode_steps:
            raise _must_reset()
        self._state = self.maze.step(self._state, [action], self._uniform())
        done = int(self._state.steps[0]) >= self.maze.episode_steps
        return self._observation(), float(self._state.reward[0]), done, False, {}

    def render(self):
        """The maze as an array `[height, width, 3]`."""
        from keras_mnm.rl.pictures import frame

        if self._state is None:
            raise _must_reset()
        return np.asarray(frame(self.maze, self._state.goal[0], self._state.agent))

    def _uniform(self):
        return self.np_random.random(1, "float32")

    def _observation(self):
        return ops.convert_to_numpy(self.maze.observe(self._state))[0]


class VectorMazeEnv(gymnasium.vector.VectorEnv):
    """`num_envs` mazes side by side, whose episodes begin and end together.

    After an episode's last step, the next one begins the next episode and ignores the actions.

    Args:
        num_envs: Positive integer. Defaults to `1`.
        render_mode: None, for these draw nothing.
        **kwargs: Arguments of `keras_mnm.rl.Maze`.

    Example:

    >>> import gymnasium
    >>> import keras_mnm.rl.gymnasium
    >>> environments = gymnasium.make_vec("keras_mnm/Maze-v0", num_envs=100)
    >>> observations, info = environments.reset(seed=0)
    >>> observations.shape
    (100, 12)
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs=1, render_mode=None, **kwargs):
        self.num_envs = integer("num_envs", num_envs)
        self.render_mode = _render_mode(render_mode, [])
        self._state = None
        one = MazeEnv(**kwargs)
        self.maze = one.maze
        self.single_observation_space = one.observation_space
        self.single_action_space = one.action_space
        batch_space = gymnasium.vector.utils.batch_space
        self.observation_space = batch_space(one.observation_space, num_envs)
        self.action_space = batch_space(one.action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        """Begins an episode in every maze."""
        super().reset(seed=seed)
        self._state = self.maze.reset(self._uniform())
        return self._observations(), {}

    def step(self, actions):
        """One step in every maze; arrays as in `MazeEnv.step`."""
        if self._state is None:
            raise _must_reset()
        if int(self._state.steps[0]) == self.maze.episode_steps:
            self._state = self.maze.reset(self._uniform())
        else:
            self._state = self.maze.step(self._state, actions, self._uniform())
        done = ops.convert_to_numpy(self._state.steps) == self.maze.episode_steps
        reward = ops.convert_to_numpy(self._state.reward).astype("float64")
        return self._observations(), reward, done, np.zeros_like(done), {}

    def _uniform(self):
        return self.np_random.random(self.num_envs, "float32")

    def _observations(self):
        return ops.convert_to_numpy(self.maze.observe(self._state))


def _render_mode(mode, modes):
    if mode is not None and mode not in modes:
        known = " or ".join(map(repr, [*modes, None]))
        raise ValueError(
            f"`render_mode` must be {known}. Received: render_mode={mode!r}; for pictures make one "
            "MazeEnv with render_mode='rgb_array'."
        )
    return mode


def _must_reset():
    return gymnasium.error.ResetNeeded(
        "No episode has begun, or the last one is over: call `reset` before the next `step` or "
        "`render`."
    )


gymnasium.register(
    id=NAME,
    entry_point="keras_mnm.rl.gymnasium:MazeEnv",
    vector_entry_point="keras_mnm.rl.gymnasium:VectorMazeEnv",
)
