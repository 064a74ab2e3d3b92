"""What there is to earn in the maze: by random steps, and by who knows the goal and all ways.

Rewards of whole episodes of 250 steps, mean and spread, each agent by the maze's own functions.
"""

import numpy as np
from keras import ops
from markdown_table import markdown_table

from keras_mnm import rl

EPISODES = 40_000
SEED = 0


def measure(quick):
    maze = rl.Maze()
    episodes = 100 if quick else EPISODES
    best = shortest_ways(maze)
    agents = {
        "random steps": lambda rng, state: rng.integers(maze.num_actions, size=episodes),
        "oracle": lambda rng, state: best[numbers(state.goal), numbers(state.agent)],
    }
    return {name: figures(maze, choose, episodes) for name, choose in agents.items()}


def figures(maze, choose, episodes):
    rng = np.random.default_rng(SEED)
    state, total = maze.reset(rng.random(episodes)), 0.0
    for _ in range(maze.episode_steps):
        state = maze.step(state, choose(rng, state), rng.random(episodes))
        total = total + numbers(state.reward)
    spread = {"mean_reward": float(total.mean()), "std_reward": float(total.std())}
    return {**spread, "episodes": episodes, "seed": SEED}


def shortest_ways(maze):
    """The first action of a shortest way, `[goal, agent]`, by walking on from every action."""
    cells, actions = maze.free_cells, maze.num_actions
    nowhere = maze.reset(np.zeros(len(cells)))._replace(goal=np.full(len(cells), -1, "int32"))
    after = [
        numbers(maze.step(nowhere._replace(agent=cells), np.full(len(cells), a), 0.0).agent)
        for a in range(actions)
    ]
    distance = np.full((maze.size**2,) * 2, np.inf)
    distance[cells, cells] = 0.0
    for _ in cells:  # no way is longer
        steps = 1.0 + np.min([distance[:, there] for there in after], axis=0)
        distance[:, cells] = np.minimum(distance[:, cells], steps)
    best = np.zeros(distance.shape, int)
    best[:, cells] = np.argmin([distance[:, there] for there in after], axis=0)
    return best


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def table(results):
    rows = []
    for name, result in results.items():
        reward = f"{result['mean_reward']:.1f} ± {result['std_reward']:.1f}"
        rows.append([name, reward, f"{result['episodes']:,}"])
    return markdown_table(["agent", "reward an episode", "episodes"], rows)
