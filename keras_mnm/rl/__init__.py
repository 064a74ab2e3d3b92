"""Reinforcement learning: the maze of the paper, and advantage actor-critic with a memory.

Importing this needs Keras alone. `keras_mnm.rl.tf_agents` needs TF-Agents, the extra `rl`, and
`keras_mnm.rl.gymnasium` needs Gymnasium, the extra `gym`.
"""

from keras_mnm.rl.maze import ACTIONS, Maze, MazeState
from keras_mnm.rl.returns import A2CLosses, a2c_losses, discounted_returns

__all__ = ["ACTIONS", "A2CLosses", "Maze", "MazeState", "a2c_losses", "discounted_returns"]
