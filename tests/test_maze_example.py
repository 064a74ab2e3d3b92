"""The maze from the command line; what examples share is tested by dictionary inference."""

import functools
import importlib.util
import json
import os
import signal
import types

import keras
import make_preset
import maze_a2c
import maze_run
import numpy as np
import pytest

import keras_mnm
from keras_mnm import rl

TINY = ["--model", "lstm", "--parallel", "4", "--episodes", "16"]


def last_json(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(maze_a2c, "STEPS_PER_EPOCH", 2)
    monkeypatch.setitem(maze_a2c.EPISODES, "evaluation", 8)
    monkeypatch.setattr(rl, "Maze", functools.partial(rl.Maze, episode_steps=20))


def start_and_end(end, folder, monkeypatch, capsys):
    """A run that `end()` ends after its third update, so that two are kept."""
    update = rl.Trainer.update

    def end_then(self):
        if self.updates == 3:
            end()
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(rl.Trainer, "update", end_then)
        with pytest.raises(SystemExit) as stop:
            maze_a2c.main([*TINY, "--output", str(folder)])
    assert stop.value.code == 130
    assert "2 updates are kept" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_slice_ends_at_the_next_checkpoint(tmp_path, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(maze_run, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))

    def update(self):
        clock[0] += 40.0
        self.optimizer.iterations.assign_add(1)
        return {"reward": 0.0, "loss": 1.0}

    monkeypatch.setattr(rl.Trainer, "update", update)
    maze_a2c.main([*TINY, "--output", str(tmp_path), "--minutes", "1"])
    assert "Stopped after 1 minutes. 2 updates are kept" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_interrupted_resumed_evaluated_and_packed(tmp_path, capsys, monkeypatch):
    """A run that is interrupted and resumed ends with the weights of an unbroken one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    maze_a2c.main([*TINY, "--output", str(whole)])
    figures = last_json(capsys)
    assert {"mean_reward", "std_reward"} <= figures.keys()

    def interrupt():
        raise KeyboardInterrupt

    start_and_end(interrupt, broken, monkeypatch, capsys)
    maze_a2c.main([*TINY, "--output", str(broken), "--resume"])
    assert last_json(capsys) == figures
    models = [keras.saving.load_model(folder / "model.keras") for folder in (whole, broken)]
    for one, other in zip(*(model.get_weights() for model in models)):
        np.testing.assert_array_equal(one, other)

    metrics = json.loads((broken / "metrics.json").read_text())
    assert metrics["updates"] == 4
    assert metrics["mean_reward"] == figures["mean_reward"]
    assert {"learning_curve.png", "maze.png", "episode.gif"} <= {p.name for p in broken.iterdir()}
    assert (broken / "episode.gif").read_bytes().startswith(b"GIF89a")
    assert list((broken / "tensorboard").glob("events*"))

    maze_a2c.main(["--evaluate", str(broken)])
    assert last_json(capsys) == figures

    preset = tmp_path / "maze-lstm"
    make_preset.main(
        [str(broken), str(preset), "--episodes", "8", "--results", str(tmp_path), "--seed", "0"]
    )
    assert last_json(capsys) == figures
    card = keras_mnm.list_presets(tmp_path)["maze-lstm"]
    assert card["description"] == "LSTM on the maze."
    assert card["training"]["updates"] == 4
    assert isinstance(keras_mnm.from_preset("maze-lstm", source=tmp_path), rl.ActorCritic)


@pytest.mark.usefixtures("quick")
def test_ended_by_a_scheduler_resumed_with_more_threads_and_gone_on_from(
    tmp_path, capsys, monkeypatch
):
    run, longer = tmp_path / "run", tmp_path / "longer"
    start_and_end(lambda: os.kill(os.getpid(), signal.SIGTERM), run, monkeypatch, capsys)
    maze_a2c.main([*TINY, "--output", str(run), "--resume", "--threads", "2"])
    assert "Continuing after update 2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        maze_a2c.main([*TINY, "--output", str(run), "--resume"])
    assert "--start-from" in capsys.readouterr().err

    began, update = [], rl.Trainer.update
    monkeypatch.setattr(
        rl.Trainer, "update", lambda self: began.append(self.model.get_weights()) or update(self)
    )
    maze_a2c.main([*TINY, "--output", str(longer), "--start-from", str(run)])
    for one, other in zip(began[0], keras.saving.load_model(run / "model.keras").get_weights()):
        np.testing.assert_array_equal(one, other)
    assert json.loads((longer / "started_from.json").read_text())["updates"] == 4


def test_options_reach_the_trainer(tmp_path, monkeypatch):
    made = []

    def make(*arguments):
        made.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(rl, "Trainer", make)
    options = {"--discount": 0.5, "--value": 0.2, "--concentration": 0.3, "--seed": 3}
    options |= {"--clipnorm": 0.7, "--learning-rate": 0.25, "--output": tmp_path}
    with pytest.raises(SystemExit):
        maze_a2c.main([*TINY, *(str(word) for pair in options.items() for word in pair)])
    _, _, optimizer, parallel, objective, seed, _ = made
    assert (parallel, seed) == (4, 3)
    assert objective == rl.A2CObjective(0.5, 0.2, 0.3)
    assert optimizer.global_clipnorm == 0.7
    assert float(optimizer._learning_rate(0)) == 0.25


def test_random_steps(tmp_path, capsys):
    maze_a2c.main(["--model", "random", "--episodes", "500", "--output", str(tmp_path)])
    figures = last_json(capsys)
    assert abs(figures["mean_reward"] - 0.1) < 3
    assert json.loads((tmp_path / "metrics.json").read_text())["episodes"] == 500
    maze_a2c.main(["--evaluate", "random", "--episodes", "500"])
    assert last_json(capsys) == figures


@pytest.mark.parametrize("name", sorted(set(maze_a2c.MAZE_MODELS) - {"random"}))
def test_models_have_the_sizes_they_tell(name):
    model = maze_a2c.make_model(name)
    model.build((None, 250, 12))
    assert model.num_actions == 4
    core = model.core
    if name.startswith("mnm"):
        assert (core.units, core.memory_units, core.memory_depth, core.num_heads) == (
            200,
            100,
            3,
            3,
        )
        assert core.write_rule == {"mnm-p": "local", "mnm-g": "gradient"}[name]
    elif "plastic" in name:
        assert core.units == 100
        plasticities = 1 if name == "homogeneous-plastic" else 100**2
        assert np.prod(core.cell.plasticity.shape) == plasticities
    else:
        assert core.units == 200
    assert maze_a2c.TASK.instance_of(model) == {}


def test_models_of_other_mazes_are_refused():
    model = maze_a2c.make_model("homogeneous-plastic")
    model.build((None, 250, 16))
    with pytest.raises(ValueError, match="12 numbers a step, received one of 16"):
        maze_a2c.TASK.instance_of(model)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("updates", [0, 2])
def test_a_loss_that_is_not_finite_ends_the_run(updates, tmp_path, capsys, monkeypatch):
    update = rl.Trainer.update

    def diverge(self):
        logs = update(self)
        return logs if self.updates <= updates else {**logs, "loss": float("nan")}

    monkeypatch.setattr(rl.Trainer, "update", diverge)
    with pytest.raises(SystemExit):
        maze_a2c.main([*TINY, "--output", str(tmp_path)])
    kept = "keeps the checkpoint of update 2" if updates else "nothing was kept yet"
    assert kept in capsys.readouterr().err
    assert (tmp_path / "checkpoint.keras").exists() == bool(updates)


def test_runs_without_tensorflow_have_no_tensorboard(tmp_path, monkeypatch):
    import maze_run

    find = importlib.util.find_spec
    absent = lambda name: None if name == "tensorflow" else find(name)
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    maze_run._Board(tmp_path / "tensorboard").write(0, {"reward": 1.0})
    assert not list(tmp_path.iterdir())


def test_random_steps_leave_a_trained_run_alone(tmp_path, capsys):
    (tmp_path / "settings.json").touch()
    with pytest.raises(SystemExit):
        maze_a2c.main(["--model", "random", "--output", str(tmp_path)])
    assert "choose another folder with --output" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("broken", ["loss", "weight"])
def test_a_run_that_breaks_keeps_its_last_good_checkpoint(broken, tmp_path, capsys, monkeypatch):
    update = rl.Trainer.update

    def then_break(self):
        logs = update(self)
        if self.updates == 4 and broken == "weight":
            self.model.trainable_weights[0].assign(self.model.trainable_weights[0] * np.nan)
        return {**logs, "loss": np.nan} if self.updates == 4 and broken == "loss" else logs

    monkeypatch.setattr(rl.Trainer, "update", then_break)
    with pytest.raises(SystemExit):
        maze_a2c.main([*TINY, "--output", str(tmp_path)])
    assert "keeps the checkpoint of update 2; begin anew" in capsys.readouterr().err
    kept = keras.saving.load_model(tmp_path / "checkpoint.keras")
    assert all(np.isfinite(weight).all() for weight in kept.get_weights())


def test_the_backend_of_the_environment_is_checked(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    with pytest.raises(SystemExit):
        maze_a2c.main([])
    assert "received 'numpy' (by default the environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parallel", "0"], "expected a positive integer"),
        (["--value", "-1"], "expected a number of at least 0"),
        (["--threads", "3"], "--threads 3 must divide --parallel 32"),
        (["--discount", "2"], "--discount 2 must be at most 1"),
        (["--model", "random", "--resume"], "leave out --resume"),
        (["--model", "random", "--start-from", "x"], "leave out --start-from"),
        (["--model", "hebb"], "invalid choice"),
        (["--backend", "torch"], "expected one of tensorflow, jax, received 'torch'"),
        (["--output", "{new}", "--resume"], "there is no checkpoint"),
        (["--evaluate", "no-such-preset"], "Unknown preset"),
        (["--evaluate", "dictionary-4x1-mnm-p"], "expected a keras_mnm.rl.ActorCritic"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        maze_a2c.main([word.format(new=tmp_path / "new") for word in arguments])
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
