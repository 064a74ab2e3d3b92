"""The maze in Gymnasium."""

import numpy as np
import pytest
from keras import ops

pytest.importorskip("gymnasium", reason="Gymnasium is not installed; it is the extra 'gym'")

import gymnasium
from gymnasium.utils.env_checker import check_env

import keras_mnm.rl.gymnasium
from keras_mnm import rl
from keras_mnm.rl import pictures

NAME = keras_mnm.rl.gymnasium.NAME


def test_passes_the_checks_of_gymnasium():
    check_env(gymnasium.make(NAME).unwrapped, skip_render_check=True)


def test_an_episode_has_its_steps_and_depends_on_the_seed():
    environment = gymnasium.make(NAME, episode_steps=20)
    episodes = []
    for seed in (3, 3):
        observation, _ = environment.reset(seed=seed)
        seen, done, actions = [observation], False, np.random.default_rng(0)
        while not done:
            observation, _, done, truncated, _ = environment.step(actions.integers(4))
            assert not truncated
            assert environment.observation_space.contains(observation)
            seen.append(observation)
        episodes.append(np.array(seen))
    assert len(episodes[0]) == 21
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert environment.observation_space.high[9] == 10.0  # the last reward
    goals = set()
    for seed in range(8):
        environment.reset(seed=seed)
        goals.add(int(environment.unwrapped._state.goal[0]))
    assert len(goals) > 1


def test_one_maze_follows_the_dynamics():
    environment, maze = gymnasium.make(NAME, episode_steps=30), rl.Maze(episode_steps=30)
    observation, _ = environment.reset(seed=1)
    chance, rng = np.random.Generator(np.random.PCG64(1)), np.random.default_rng(0)
    state = maze.reset(chance.random(1, "float32"))
    assert environment.unwrapped._state.goal == state.goal
    for _ in range(30):
        action = rng.integers(4)
        observation, reward, *_ = environment.step(action)
        state = maze.step(state, [action], chance.random(1, "float32"))
        np.testing.assert_array_equal(observation, ops.convert_to_numpy(maze.observe(state))[0])
        assert reward == float(state.reward[0])


def test_mazes_side_by_side_follow_the_dynamics():
    environments = gymnasium.make_vec(NAME, num_envs=50, episode_steps=5)
    observations, _ = environments.reset(seed=1)
    rng = np.random.default_rng(1)
    chance = np.random.Generator(np.random.PCG64(1))  # Gymnasium's own
    maze = rl.Maze(episode_steps=5)
    for _ in range(2):
        state = maze.reset(chance.random(50, "float32"))
        for step in range(5):
            np.testing.assert_array_equal(observations, ops.convert_to_numpy(maze.observe(state)))
            actions = rng.integers(4, size=50)
            observations, rewards, done, _, _ = environments.step(actions)
            state = maze.step(state, actions, chance.random(50, "float32"))
            np.testing.assert_array_equal(rewards, ops.convert_to_numpy(state.reward))
            assert done.all() == (step == 4)
        observations, rewards, done, _, _ = environments.step(actions)  # begins the next episode
        assert not done.any()
        assert not rewards.any()


@pytest.mark.parametrize("action", [-1, 4, 1.5, None])
def test_impossible_actions(action):
    one, two = keras_mnm.rl.gymnasium.MazeEnv(), keras_mnm.rl.gymnasium.VectorMazeEnv(2)
    one.reset(seed=0)
    two.reset(seed=0)
    for environment, given in ((one, action), (two, [0, action])):
        with pytest.raises(ValueError, match="an integer from 0 to 3"):
            environment.step(given)
    with pytest.raises(ValueError, match="one for each of the 2 maze"):
        two.step([0, 1, 2])


def test_no_step_without_an_episode():
    one = keras_mnm.rl.gymnasium.MazeEnv(episode_steps=1)
    two = keras_mnm.rl.gymnasium.VectorMazeEnv(2)
    for use in (lambda: one.step(0), one.render, lambda: two.step([0, 1])):
        with pytest.raises(gymnasium.error.ResetNeeded, match="call `reset`"):
            use()
    one.reset(seed=0)
    assert one.step(0)[2]
    with pytest.raises(gymnasium.error.ResetNeeded, match="the last one is over"):
        one.step(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "`num_envs`.*0"),
        ({"render_mode": "rgb_array"}, "`render_mode` must be None.*'rgb_array'"),
    ],
)
def test_impossible_mazes_side_by_side(options, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.rl.gymnasium.VectorMazeEnv(**options)
    with pytest.raises(ValueError, match="'rgb_array' or None.*'human'"):
        keras_mnm.rl.gymnasium.MazeEnv(render_mode="human")


def test_render():
    pytest.importorskip("PIL", reason="Pillow is not installed; it comes with the extra 'viz'")
    environment = gymnasium.make(NAME, render_mode="rgb_array")
    environment.reset(seed=0)
    before = environment.render()
    assert before.shape == (352, 352, 3)
    environment.step(0)
    assert (before != environment.render()).any()


def test_pictures_of_cells_that_are_not_there():
    pytest.importorskip("PIL", reason="Pillow is not installed; it comes with the extra 'viz'")
    maze = rl.Maze()
    with pytest.raises(ValueError, match=r"free cells of the maze.*\[0\] in a maze of 11"):
        pictures.frame(maze, goal=0, trail=[maze.center])
    with pytest.raises(ValueError, match="`trail` must have the agent's cell"):
        pictures.frame(maze, goal=maze.center, trail=[])


def color_at(frame, cell):
    """Of the middle of a cell of 32 pixels, in a maze of 11."""
    row, column = divmod(int(cell), 11)
    return "#{:02x}{:02x}{:02x}".format(*np.asarray(frame)[32 * row + 16, 32 * column + 16])


def test_pictures_have_goal_and_agent_where_they_are():
    pytest.importorskip("PIL", reason="Pillow is not installed; it comes with the extra 'viz'")
    goal, agent = 1 * 11 + 3, 5 * 11 + 4
    frame = pictures.frame(rl.Maze(), goal=goal, trail=[agent])
    cells = ops.convert_to_tensor([goal, agent])  # as a rollout has them
    assert pictures.frame(rl.Maze(), cells[0], cells[1:]).tobytes() == frame.tobytes()
    assert color_at(frame, goal) == pictures._GOAL
    assert color_at(frame, agent) == pictures._AGENT
    environment = keras_mnm.rl.gymnasium.MazeEnv("rgb_array")
    environment.reset(seed=3)
    assert color_at(environment.render(), environment._state.agent[0]) == pictures._AGENT


def test_an_animation_shows_the_episode_that_was_asked_for(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed; see the extra 'viz'")
    maze = rl.Maze(episode_steps=6)
    episodes = rl.rollout(None, maze, rl.draw_chance(0, 2, 6))
    for index in range(2):
        pictures.episode_animation(maze, episodes, tmp_path / f"{index}.gif", index, 120)
        with image.open(tmp_path / f"{index}.gif") as found:
            assert found.n_frames == 7
            assert found.info["duration"] == 120
            shown = np.asarray(found.convert("RGB"))
        goal, agent = (int(cells) for cells in (episodes.goals[index], episodes.agents[index, 0]))
        expected = pictures.frame(maze, goal, [agent], "step 0   reward 0.0")
        assert np.abs(shown.astype(int) - np.asarray(expected)).max() < 20  # a GIF's palette
