import collections
import functools

import numpy as np
import pytest
from keras import ops

from keras_mnm.rl import ACTIONS, Maze

PICTURE = """
###########
#.........#
#.#.#.#.#.#
#.........#
#.#.#.#.#.#
#.........#
#.#.#.#.#.#
#.........#
#.#.#.#.#.#
#.........#
###########
"""
ROWS = PICTURE.split()
FREE = [(r, c) for r in range(11) for c in range(11) if ROWS[r][c] == "."]
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


class PlainMaze:
    """One maze, played on the picture above; shares no code with the package."""

    def __init__(self, uniform, episode_steps=250):
        self.agent, self.goal = (5, 5), FREE[int(uniform * 65)]
        self.reward, self.count, self.episode_steps = 0.0, 0, episode_steps

    def step(self, action, uniform):
        row, column = (a + b for a, b in zip(self.agent, MOVES[ACTIONS[action]]))
        self.reward = 0.0
        if ROWS[row][column] == "#":
            self.reward -= 0.1
        else:
            self.agent = (row, column)
        if self.agent == self.goal:
            self.reward += 10.0
            self.agent = FREE[int(uniform * 65)]
        self.count += 1

    def observe(self):
        row, column = self.agent
        patch = [
            float(ROWS[r][c] == "#")
            for r in range(row - 1, row + 2)
            for c in range(column - 1, column + 2)
        ]
        return [*patch, self.reward, self.count / self.episode_steps, 1.0]


def cell(row, column):
    return 11 * row + column


def play(maze, uniform, actions, landing=0.0):
    """States of one maze after each action."""
    state, states = maze.reset([uniform]), []
    for action in actions:
        state = maze.step(state, [ACTIONS.index(action)], [landing])
        states.append(state)
    return states


def oracle_distances():
    """Steps to every goal from every cell, and the first action of such a way: `[121, 121]`."""
    distance, action = np.full((121, 121), -1), np.zeros((121, 121), int)
    for goal in FREE:
        distance[cell(*goal), cell(*goal)] = 0
        queue = collections.deque([goal])
        while queue:
            here = queue.popleft()
            for index, name in enumerate(ACTIONS):
                there = here[0] - MOVES[name][0], here[1] - MOVES[name][1]
                if there in FREE and distance[cell(*goal), cell(*there)] < 0:
                    distance[cell(*goal), cell(*there)] = distance[cell(*goal), cell(*here)] + 1
                    action[cell(*goal), cell(*there)] = index
                    queue.append(there)
    return distance, action


def test_walls_and_free_cells():
    maze = Maze()
    assert ["".join(".#"[wall] for wall in row) for row in maze.walls.astype(int)] == ROWS
    assert maze.free_cells.tolist() == [cell(*place) for place in FREE]
    assert len(FREE) == 65


def test_hand_played_episode():
    """To the goal two cells to the left, from there to the upper left corner, and into the wall."""
    goal = FREE.index((5, 3)) / 65 + 0.001
    states = play(Maze(), goal, ["left", "left", "up", "right", "down"])
    assert [int(s.agent[0]) for s in states] == [
        cell(5, 4),
        cell(1, 1),  # teleported
        cell(1, 1),  # into the border
        cell(1, 2),
        cell(1, 2),  # into a pillar
    ]
    np.testing.assert_allclose([float(s.reward[0]) for s in states], [0, 10, -0.1, 0, -0.1])
    assert all(int(s.goal[0]) == cell(5, 3) for s in states)
    assert [int(s.steps[0]) for s in states] == [1, 2, 3, 4, 5]


def test_who_lands_on_the_goal_may_bump_into_it():
    states = play(Maze(), 0.0, ["up"] * 4 + ["left"] * 4 + ["up"])
    rewards = [float(s.reward[0]) for s in states]
    np.testing.assert_allclose(rewards, [0, 0, 0, 0, 0, 0, 0, 10, 9.9], rtol=1e-6)


def test_equals_a_plain_twin_for_whole_episodes():
    rng = np.random.default_rng(0)
    maze, batch = Maze(), 20
    uniform = rng.random(batch, "float32")
    state, twins = maze.reset(uniform), [PlainMaze(u) for u in uniform]
    for _ in range(250):
        expected = [twin.observe() for twin in twins]
        np.testing.assert_allclose(ops.convert_to_numpy(maze.observe(state)), expected, rtol=1e-6)
        actions, uniform = rng.integers(4, size=batch), rng.random(batch, "float32")
        state = maze.step(state, actions, uniform)
        for twin, action, u in zip(twins, actions, uniform):
            twin.step(action, u)
    assert sum(twin.reward > 0 for twin in twins) < batch  # not always there


def test_previous_action_is_seen_on_request():
    maze = Maze(previous_action=True)
    state = maze.reset([0.0, 0.0])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(maze.observe(state))[:, 12:], np.zeros((2, 4))
    )
    state = maze.step(state, [1, 3], [0.0, 0.0])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(maze.observe(state))[:, 12:], np.eye(4)[[1, 3]]
    )


def test_cells_are_drawn_evenly_from_the_whole_interval():
    maze = Maze()
    goals = ops.convert_to_numpy(maze.reset(np.linspace(0, 1, 6500, endpoint=False)).goal)
    counts = np.bincount(goals, minlength=121)[maze.free_cells]
    assert counts.sum() == 6500
    assert np.all(np.abs(counts - 100) <= 1)
    almost_one = np.nextafter(np.float32(1), np.float32(0))
    assert int(maze.reset([almost_one]).goal[0]) == cell(9, 9)


def total_rewards(choose, episodes, seed=0):
    rng = np.random.default_rng(seed)
    maze = Maze()
    state, total = maze.reset(rng.random(episodes)), 0.0
    for _ in range(250):
        state = maze.step(state, choose(rng, state), rng.random(episodes))
        total = total + ops.convert_to_numpy(state.reward)
    return total


@functools.cache
def rewards_of_random_steps():
    return total_rewards(lambda rng, state: rng.integers(4, size=20_000), 20_000)


def test_random_policy_earns_a_tenth():
    """About, as one reads of it: goals bring a little more than walls cost; see the next test."""
    totals = rewards_of_random_steps()
    assert abs(totals.mean() - 0.1) < 5 * totals.std() / np.sqrt(20_000)


def test_random_policy_earns_what_the_chain_of_cells_tells():
    """The expected reward, from the chances of being in each cell: exactly 0.246."""
    count, expected = len(FREE), 0.0
    for goal in FREE:
        reward, chances = np.zeros(count), np.zeros((count, count))
        for here, (row, column) in enumerate(FREE):
            for move in MOVES.values():
                there = row + move[0], column + move[1]
                if there not in FREE:
                    reward[here] -= 0.1 / 4
                    there = row, column
                if there == goal:
                    reward[here] += 10 / 4
                    chances[here] += 1 / 4 / count
                else:
                    chances[here, FREE.index(there)] += 1 / 4
        agent = np.eye(count)[FREE.index((5, 5))]
        for _ in range(250):
            expected += agent @ reward / count
            agent = agent @ chances
    assert expected == pytest.approx(0.246, abs=1e-3)
    totals = rewards_of_random_steps()
    assert abs(totals.mean() - expected) < 4 * totals.std() / np.sqrt(20_000)


def test_oracle_earns_412():
    distance, action = oracle_distances()
    assert distance[distance >= 0].mean() == pytest.approx(6.1728, abs=1e-4)

    def choose(rng, state):
        goal, agent = ops.convert_to_numpy(state.goal), ops.convert_to_numpy(state.agent)
        return action[goal, agent]

    totals = total_rewards(choose, 4000)
    assert abs(totals.mean() - 412) < 4


@pytest.mark.parametrize("action", [-1, 4])
def test_impossible_actions(action):
    maze = Maze()
    with pytest.raises(ValueError, match=f"from 0 to 3.*'up'.*Received: .0, {action}"):
        maze.step(maze.reset([0.1, 0.2]), [0, action], [0.0, 0.0])


@pytest.mark.parametrize("actions", [[0.0, 1.7], [1], 1, [[0, 1]]])
def test_not_one_action_for_each_maze(actions):
    maze = Maze()
    state = maze.reset([0.1, 0.2])
    for given in (actions, ops.convert_to_tensor(actions)):
        with pytest.raises(ValueError, match="one for each of the 2 maze.*Received"):
            maze.step(state, given, [0.0, 0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 9}, "`size` must be 7, 11, 15.*size=9"),
        ({"size": 3}, "`size`.*at least 7.*size=3"),
        ({"episode_steps": 0}, "`episode_steps`.*0"),
        ({"previous_action": "yes"}, "`previous_action`.*False, True.*'yes'"),
    ],
)
def test_impossible_mazes(options, message):
    with pytest.raises(ValueError, match=message):
        Maze(**options)
