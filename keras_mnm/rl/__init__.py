"""Reinforcement learning: the maze of the paper, and advantage actor-critic with a memory.

Importing this needs Keras alone. `keras_mnm.rl.tf_agents` needs TF-Agents, the extra `rl`, and
`keras_mnm.rl.gymnasium` needs Gymnasium, the extra `gym`.
"""

from keras_mnm.rl.actor_critic import ActorCritic
from keras_mnm.rl.maze import ACTIONS, Maze, MazeState
from keras_mnm.rl.returns import A2CLosses, a2c_losses, discounted_returns, log_probabilities
from keras_mnm.rl.training import (
    A2CObjective,
    Chance,
    Rollout,
    Trainer,
    choose,
    draw_chance,
    rollout,
    total_rewards,
)

__all__ = [
    "ACTIONS",
    "A2CLosses",
    "A2CObjective",
    "ActorCritic",
    "Chance",
    "Maze",
    "MazeState",
    "Rollout",
    "Trainer",
    "a2c_losses",
    "choose",
    "discounted_returns",
    "draw_chance",
    "log_probabilities",
    "rollout",
    "total_rewards",
]
