"""The maze from the command line; what examples share is tested by dictionary inference."""

import json

import keras
import make_preset
import maze_a2c
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


@pytest.mark.usefixtures("quick")
def test_interrupted_resumed_evaluated_and_packed(tmp_path, capsys, monkeypatch):
    """A run that is interrupted and resumed ends with the weights of an unbroken one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    maze_a2c.main([*TINY, "--output", str(whole)])
    figures = last_json(capsys)
    assert {"mean_reward", "std_reward"} <= figures.keys()

    update = rl.Trainer.update

    def interrupt(self):
        if self.updates == 3:
            raise KeyboardInterrupt
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(rl.Trainer, "update", interrupt)
        with pytest.raises(SystemExit) as stop:
            maze_a2c.main([*TINY, "--output", str(broken)])
    assert stop.value.code == 130
    assert "2 updates are kept" in capsys.readouterr().out
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
    assert model.num_actions == 4
    assert model.core.return_sequences
    assert maze_a2c.TASK.settings_of(model) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parallel", "0"], "expected a positive integer"),
        (["--threads", "3"], "--threads 3 must divide --parallel 32"),
        (["--model", "hebb"], "invalid choice"),
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
