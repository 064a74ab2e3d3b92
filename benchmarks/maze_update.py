"""An update of actor-critic in the maze, by model: 64 episodes of 250 steps, played and learned."""

import functools

import keras
import maze_a2c

from keras_mnm import rl

PARALLEL = 64
MODELS = ("mnm-p", "mnm-g", "lstm", "plastic", "homogeneous-plastic")
IN_TWO_THREADS = "mnm-p, two threads"
RATIOS = tuple(("mnm-p", other) for other in (*MODELS[1:], IN_TWO_THREADS))


def cases(quick):
    parallel = 4 if quick else PARALLEL
    competitors = {model: functools.partial(make, model, parallel) for model in MODELS}
    competitors[IN_TWO_THREADS] = functools.partial(make, "mnm-p", parallel, threads=2)
    yield f"{parallel} episodes, {parallel * rl.Maze().episode_steps} steps", competitors


def make(model, parallel, threads=1):
    keras.utils.set_random_seed(0)
    model, optimizer = maze_a2c.make_model(model), keras.optimizers.Adam(1e-3)
    return rl.Trainer(model, rl.Maze(), optimizer, parallel, threads=threads).update
