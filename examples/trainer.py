"""The training run that the examples share: `model.fit` with checkpoint, resume and results."""

import contextlib
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import typing

import command_line
import keras

import keras_mnm
from keras_mnm import backend
from keras_mnm.files import load_model, replacing, versions, write_json
from keras_mnm.visualize import learning_curve

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

_CHECKPOINT, _SETTINGS, _HISTORY = "checkpoint.keras", "settings.json", "history.json"
_MODEL, _BEST, _METRICS = "model.keras", "best.keras", "metrics.json"


class Validation(typing.NamedTuple):
    """What to validate on, and what for: the best model is kept, and is the run's result."""

    data: keras.utils.PyDataset
    every: int
    """Epochs from one validation to the next; the last one scheduled is validated, too."""
    monitor: str
    """The figure that counts, the more the better."""

    def is_best(self, history):
        """Whether the last epoch was validated, with the best figure up to then."""
        values = history.get(f"val_{self.monitor}", [None])
        return values[-1] is not None and all(v is None or v < values[-1] for v in values[:-1])


class Run:
    """One training run in a folder: its settings, checkpoint, history and results.

    Args:
        folder: Where the files are.
        settings: A dict of JSON-able values; a run is resumed only under the same settings.
        is_done: Whether to end early, by the history. Defaults to never.
    """

    def __init__(self, folder, settings, is_done=lambda history: False):
        self.folder = folder
        self.settings = settings
        self._is_done = is_done
        self.history = {}
        self.seconds = []
        """Time of training and validation by the end of each epoch, without that of saving."""
        self.origin = None
        """`origin()` of the last epoch: a run may be finished elsewhere."""
        self._model = None
        self._opened = None  # the history of a resumed run, as it was found
        self._kept = 0  # updates of the checkpoint

    @property
    def epoch(self):
        """Epochs done."""
        return len(self.history.get("loss", ()))

    @property
    def steps_per_epoch(self):
        """Updates an epoch."""
        return command_line.steps_per_epoch(self.settings)

    @property
    def updates(self):
        """Updates done; the last epoch may have fewer."""
        return min(self.epoch * self.steps_per_epoch, self.settings["steps"])

    def open(self, resume):
        """Loads the earlier run to resume it. A ValueError where there is none, or another."""
        if not resume:
            self._check_unused()
            return
        checkpoint = self.folder / _CHECKPOINT
        before, state = self._read(_SETTINGS), self._read(_HISTORY)
        if before is None or state is None or not checkpoint.exists():
            raise ValueError(f"there is no checkpoint in {self.folder}; leave out --resume.")
        changed = [
            f"{name} (there {before.get(name)!r}, here {self.settings.get(name)!r})"
            for name in sorted(before.keys() | self.settings)
            if before.get(name) != self.settings.get(name)
        ]
        model = self.folder / _MODEL
        on = f"to train on, begin a new one with --start-from {model} and another --output"
        if changed:
            same = "give the same ones, or choose another folder with --output"
            raise ValueError(
                f"the checkpoint in {self.folder} is of other settings: {', '.join(changed)}; "
                f"{on if state['finished'] else same}."
            )
        if state["finished"]:
            raise ValueError(f"the run in {self.folder} is finished; {on}.")
        self._opened = (self.folder / _HISTORY).read_text()
        self._model = load_model(checkpoint, compile=True)
        # A run killed between writing the history and the checkpoint repeats that epoch.
        epochs = -(-int(self._model.optimizer.iterations) // self.steps_per_epoch)
        self.seconds, self.origin = state["seconds"][:epochs], state["origin"]
        self.history = {name: values[:epochs] for name, values in state["history"].items()}
        self._kept = self.updates

    def _check_unused(self):
        """A ValueError where the folder has a checkpoint or a result."""
        if any((self.folder / name).exists() for name in (_CHECKPOINT, _MODEL)):
            finished = (self._read(_HISTORY) or {}).get("finished", True)
            elsewhere = "choose another folder with --output"
            way = f"continue it with --resume (if it is not running), or {elsewhere}"
            if finished:
                way = f"{elsewhere}, or look at it with --evaluate {self.folder}"
            kind = "a finished" if finished else "an unfinished"
            raise ValueError(f"{self.folder} holds {kind} run; {way}.")

    def _check_untouched(self):
        """A ValueError where another run has been in the folder since `open`."""
        if self._model is None:
            self._check_unused()
        elif (self.folder / _HISTORY).read_text() != self._opened:
            raise ValueError(
                f"the run in {self.folder} went on in another process; start again with --resume."
            )

    def train(self, model, data, validation=None, minutes=None):
        """Fits the model.

        Args:
            model: A compiled model, to begin with; a resumed run has its own.
            data: An `Episodes` of `steps_per_epoch` batches an epoch.
            validation: A `Validation`. Defaults to `None`.
            minutes: Stops after that time, at the end of an epoch. Defaults to `None`, never.

        Returns:
            The trained model; with a validation, the best one.
        """
        if self._model is None:
            self._begin(model)
        if not self.is_complete():
            epochs, options = -(-self.settings["steps"] // self.steps_per_epoch), {}
            if validation:
                looks = [*range(validation.every, epochs, validation.every), epochs]
                options = {"validation_data": validation.data, "validation_freq": looks}
            self._model.fit(
                data,
                epochs=epochs,
                initial_epoch=self.epoch,
                shuffle=False,  # batches are random already, and a resumed run repeats their order
                callbacks=[keras_mnm.StopOnNaN(), _Checkpoint(self, data, validation, minutes)],
                **options,
            )
        if self.is_complete() and (self.folder / _BEST).exists():
            return load_model(self.folder / _BEST)
        return self._model

    def _begin(self, model):
        for name in (_BEST, _HISTORY, _METRICS):  # of a run that kept no checkpoint
            (self.folder / name).unlink(missing_ok=True)
        self._write(_SETTINGS, self.settings)
        self._model = model

    def is_complete(self):
        """Whether all updates are done, or no more are needed."""
        return self.updates >= self.settings["steps"] or self._is_done(self.history)

    @contextlib.contextmanager
    def running(self):
        """Within, the folder is this run's alone, and Ctrl-C and SIGTERM tell how to go on.

        A ValueError where another process trains in the folder.
        """
        handler = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            with _locked(self.folder):
                self._check_untouched()
                yield
        except KeyboardInterrupt:
            print(f"\n{self._interrupted('Interrupted')}", flush=True)
            sys.exit(130)
        finally:
            signal.signal(signal.SIGTERM, handler)

    def train_or_tell(self, *args, minutes=None):
        """As `train`; where that ends before its time, tells how to go on and returns None."""
        if self.updates:
            print(f"Continuing after update {self.updates:,}", flush=True)
        model = self.train(*args, minutes=minutes)
        if self.is_complete():
            return model
        print(self._interrupted(f"Stopped after {minutes:g} minutes"))
        return None

    def _interrupted(self, how):
        if self._kept:
            words = [word for word in sys.argv if word != "--resume"]
            command = shlex.join([sys.executable, *words, "--resume"])
            return (
                f"{how}. {self._kept} updates are kept in {self.folder}. Continue with: {command}"
            )
        return f"{how}. Nothing was kept yet. Start again with the same command."

    def finish(self, model, title, figures):
        """Writes the model, the learning curve and `metrics.json`."""
        self._save(model, _MODEL)
        self.draw_curve(self.folder / "learning_curve.png", title)
        metrics = {
            **figures,
            "updates": self.updates,
            "training_seconds": self.seconds[-1],
            "settings": self.settings,
            **self.origin,
        }
        self._write(_METRICS, metrics)
        self._write_history(finished=True)

    def draw_curve(self, path, title):
        """Draws the history into a PNG file."""
        learning_curve(self.history, path, title, self.steps_per_epoch)

    def keep(self, model, seconds, logs, validation=None):
        """Keeps the history and a whole checkpoint, optimizer included, after an epoch."""
        before, epoch = self.seconds[-1] if self.seconds else 0.0, self.epoch
        self.seconds.append(round(before + seconds, 2))
        self.origin = origin()
        for name in dict.fromkeys([*self.history, *logs]):
            # Epochs without validation have no such figures.
            value = logs.get(name)
            values = self.history.setdefault(name, [None] * epoch)
            values.append(value if value is None else float(value))
        if validation and validation.is_best(self.history):
            self._save(model, _BEST)
        self._write_history(finished=False)
        self._save(model, _CHECKPOINT)
        self._kept = self.updates

    def _save(self, model, name):
        with replacing(self.folder / name) as path:
            model.save(path)

    def _read(self, name):
        try:
            return json.loads((self.folder / name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.folder / name} is damaged ({error}); choose another --output."
            ) from error

    def _write(self, name, content):
        write_json(self.folder / name, content)

    def _write_history(self, finished):
        state = {"finished": finished, "seconds": self.seconds, "history": self.history}
        self._write(_HISTORY, {**state, "origin": self.origin})


@contextlib.contextmanager
def _locked(folder):
    """Within, no other process has the folder's lock, if there are locks at all."""
    if fcntl is None:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process trains in {folder}; let it end, or choose another folder with "
                "--output."
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


class _Checkpoint(keras.callbacks.Callback):
    """Keeps a checkpoint after every epoch, and ends a run that is solved."""

    def __init__(self, run, data, validation, minutes):
        super().__init__()
        self._run = run
        self._data = data
        self._validation = validation
        self._end = time.monotonic() + 60.0 * minutes if minutes else float("inf")

    def on_epoch_begin(self, epoch, logs=None):
        self._data.epoch = epoch
        self._start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self._run.keep(self.model, time.monotonic() - self._start, logs, self._validation)
        if self._run.is_complete() or time.monotonic() >= self._end:
            self.model.stop_training = True


def make_optimizer(learning_rate, steps, clipnorm=10.0):
    """Adam, with gradients clipped, by `command_line.SCHEDULE` over `steps` updates."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.05)
    return keras.optimizers.Adam(schedule, global_clipnorm=clipnorm)


def compile_model(model, learning_rate, steps, loss, metrics):
    """Compiles with `make_optimizer`'s; one compiled program a step where XLA is."""
    model.compile(
        optimizer=make_optimizer(learning_rate, steps),
        loss=loss,
        metrics=metrics,
        jit_compile=keras.backend.backend() != "torch",
    )


def origin():
    """What a run was made by: to be told of it even if it ends before its time."""
    # No places of this machine: where data lies says nothing of what it holds. Nor in which
    # slices of time it ran: the resumed run is the unbroken one.
    words = ["python", *map(_without_place, sys.argv)]
    command = re.sub(r" --resume\b| --minutes[ =]\S+", "", shlex.join(words))
    return {"command": command, "versions": versions() | _COMMIT, "machine": machine()}


def _without_place(word):
    """A word of the command line; of an absolute path its last part alone."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if os.path.isabs(value):
        value = os.path.basename(os.path.normpath(value))
    return option + equals + value


def _commit():
    """The clone's commit, in a dict; an empty one where there is none."""
    git = shutil.which("git")
    command = [git, "describe", "--always", "--dirty", "--exclude=*"]
    here = pathlib.Path(__file__).parent
    done = git and subprocess.run(command, cwd=here, capture_output=True, text=True)
    return {"commit": done.stdout.strip()} if done and done.returncode == 0 else {}


# Now, for others may be made while the process runs.
_COMMIT = _commit()


def machine():
    """What a figure was measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": backend.accelerator(),
        "system": platform.system(),
    }


def _processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(
                line.split(":")[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
