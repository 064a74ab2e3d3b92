"""A training run in the maze: checkpoint, resume, progress, TensorBoard and results."""

import importlib.util
import sys
import time

import experiment
import keras
import numpy as np
from keras import ops
from trainer import Run, make_optimizer

from keras_mnm import rl
from keras_mnm.visualize import reward_curve


class MazeRun(Run):
    """A `trainer.Run` whose epochs are a few updates by a `keras_mnm.rl.Trainer`."""

    def train(self, model, maze, threads=1, minutes=None):
        """Trains to the number of episodes in the settings, or for some minutes.

        The number of `threads` is no setting of the run, for it changes nothing but roundings.

        Returns:
            The trained model.
        """
        end = time.monotonic() + 60.0 * minutes if minutes else float("inf")
        settings = self.settings
        if self._model is None:
            model.compile(
                make_optimizer(settings["learning_rate"], settings["steps"], settings["clipnorm"])
            )
            self._begin(model)
        trainer = rl.Trainer(
            self._model,
            maze,
            self._model.optimizer,
            settings["parallel"],
            rl.A2CObjective(settings["discount"], settings["value"], settings["concentration"]),
            settings["seed"],
            threads,
        )
        board = _Board(self.folder / "tensorboard")
        while trainer.updates < settings["steps"] and time.monotonic() < end:
            start = time.monotonic()
            count = min(self.steps_per_epoch, settings["steps"] - trainer.updates)
            logs = [trainer.update() for _ in range(count)]
            logs = {name: float(np.mean([log[name] for log in logs])) for name in logs[0]}
            if not self._is_finite(logs["loss"]):
                print(file=sys.stderr)
                kept = f"{self.folder} keeps the checkpoint of update {self.updates}"
                raise ValueError(
                    f"the loss or a weight was no longer finite by update {trainer.updates}; "
                    f"{kept if self.updates else 'nothing was kept yet'}; begin anew with a "
                    "smaller --learning-rate and another --output."
                )
            seconds = time.monotonic() - start
            self.keep(self._model, seconds, logs)
            rate = count * settings["parallel"] * maze.episode_steps / seconds
            board.write(trainer.episodes, {**logs, "steps_per_second": rate})
            _show(trainer.episodes, settings["steps"] * settings["parallel"], logs, rate)
        print(file=sys.stderr)
        return self._model

    def _is_finite(self, loss):
        """Whether the loss is, and the weights that the last step made."""
        weights = self._model.trainable_weights
        return np.isfinite([loss, *(float(ops.sum(weight)) for weight in weights)]).all()

    def draw_curve(self, path, title):
        rewards = self.history["reward"]
        updates = np.array(experiment.updates_by_epoch(self.settings, len(rewards)))
        reward_curve(updates * self.settings["parallel"], rewards, path, title)


class _Board:
    """Scalars for TensorBoard, written by TensorFlow; without it there are none.

    `tf.summary.scalar` comes with TensorBoard, which need not be installed here.
    """

    def __init__(self, folder):
        self._writer = None
        if importlib.util.find_spec("tensorflow") is not None:
            import tensorflow as tf

            if keras.backend.backend() != "tensorflow":
                tf.config.set_visible_devices([], "GPU")  # whose memory is another's
            metadata = tf.compat.v1.SummaryMetadata
            kind = metadata.PluginData(plugin_name="scalars")
            self._metadata = metadata(plugin_data=kind)
            self._summary = tf.summary
            self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, episodes, values):
        if self._writer is None:
            return
        with self._writer.as_default(step=episodes):
            for name, value in values.items():
                self._summary.write(name, np.float32(value), metadata=self._metadata)
        self._writer.flush()


def _show(episodes, all_episodes, logs, rate):
    done = episodes / all_episodes
    bar = "━" * round(20 * done) + "─" * (20 - round(20 * done))
    line = (
        f"{bar} {episodes:,}/{all_episodes:,} episodes  reward {logs['reward']:.1f}  "
        f"loss {logs['loss']:.3f}  {rate:,.0f} steps/s"
    )
    print(f"\r{line:<100}", end="", file=sys.stderr, flush=True)
