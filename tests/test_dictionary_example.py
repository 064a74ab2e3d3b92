import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import dictionary_inference
import pytest

SCRIPT = pathlib.Path(dictionary_inference.__file__)
TINY = ["--steps", "4", "--batch-size", "4", "--episodes", "20"]


def run(*arguments):
    """What the example prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        dictionary_inference.main([str(argument) for argument in arguments])
    return output.getvalue()


def last_json(output):
    return json.loads(output.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run(*TINY, "--output", folder)


def test_a_run_leaves_model_curve_history_and_metrics(finished):
    folder, output = finished
    assert {"model.keras", "learning_curve.png", "history.json", "metrics.json"} <= set(
        os.listdir(folder)
    )
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["updates"] == 4
    assert metrics["settings"]["seed"] == 0
    assert {"keras", "numpy", "python", "backend"} <= set(metrics["versions"])
    assert last_json(output)["episodes"] == 20
    assert "meta_loss" in output
    history = json.loads((folder / "history.json").read_text())["history"]
    assert {"loss", "meta_loss", "accuracy", "sequence_accuracy"} <= set(history)


def test_evaluation_of_a_file_and_of_a_preset(finished):
    for model in (finished[0] / "model.keras", "dictionary-4x1-mnm-p"):
        figures = last_json(run("--evaluate", model, "--episodes", 40, "--seed", 3))
        assert 0 <= figures["sequence_accuracy"] <= figures["symbol_accuracy"] <= 1
        assert figures["evaluation_seed"] == 3
    assert figures["symbol_accuracy"] > 0.9


def test_interrupted_and_resumed_equals_unbroken(tmp_path, monkeypatch, capsys):
    """Ctrl-C after some epochs; the resumed run ends with the weights of an unbroken one."""
    import keras
    import numpy as np
    import trainer

    arguments = ["--steps", "8", "--batch-size", "4", "--episodes", "4", "--model", "lstm"]
    arguments += ["--steps-per-epoch", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    dictionary_inference.main([*arguments, "--output", str(whole)])

    original = trainer._Checkpoint.on_epoch_begin

    def interrupt(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Checkpoint, "on_epoch_begin", interrupt)
        with pytest.raises(SystemExit) as stop:
            dictionary_inference.main([*arguments, "--output", str(broken)])
    assert stop.value.code == 130
    assert "4 updates are kept" in capsys.readouterr().out
    with pytest.raises(SystemExit):  # not by accident
        dictionary_inference.main([*arguments, "--output", str(broken)])
    dictionary_inference.main([*arguments, "--output", str(broken), "--resume"])

    models = [keras.saving.load_model(folder / "model.keras") for folder in (whole, broken)]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    curves = [
        json.loads((folder / "history.json").read_text())["history"] for folder in (whole, broken)
    ]
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], rtol=1e-5)


def test_interrupted_while_it_measures(tmp_path, monkeypatch, capsys):
    arguments = ["--steps", "4", "--steps-per-epoch", "2", "--batch-size", "4", "--episodes", "4"]
    arguments += ["--model", "lstm", "--output", str(tmp_path)]

    def interrupt(model, args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dictionary_inference.TASK, "measure", interrupt)
        with pytest.raises(SystemExit) as stop:
            dictionary_inference.main(arguments)
    assert stop.value.code == 130
    assert "4 updates are kept" in capsys.readouterr().out
    dictionary_inference.main([*arguments, "--resume"])
    assert json.loads((tmp_path / "metrics.json").read_text())["updates"] == 4


def test_a_run_that_is_finished_elsewhere_tells_where_it_was_trained(tmp_path):
    arguments = ["--steps", "6", "--steps-per-epoch", "3", "--batch-size", "4", "--episodes", "4"]
    arguments += ["--model", "lstm", "--output", str(tmp_path)]
    dictionary_inference.main(arguments)
    history = json.loads((tmp_path / "history.json").read_text())
    assert len(history["seconds"]) == 2

    # As if it had been killed after its last update, on another machine.
    history["finished"], history["origin"]["machine"] = False, "another one"
    (tmp_path / "history.json").write_text(json.dumps(history))
    (tmp_path / "metrics.json").unlink()
    dictionary_inference.main([*arguments, "--resume"])
    assert json.loads((tmp_path / "metrics.json").read_text())["machine"] == "another one"


def test_an_epoch_whose_checkpoint_was_not_written_comes_again(tmp_path, monkeypatch):
    """A run killed right after it wrote the history of its last epoch."""
    import trainer

    arguments = ["--steps", "6", "--steps-per-epoch", "3", "--batch-size", "4", "--episodes", "4"]
    arguments += ["--model", "lstm", "--output", str(tmp_path)]
    begin, checkpoint = trainer._Checkpoint.on_epoch_begin, tmp_path / "checkpoint.keras"

    def keep(self, epoch, logs=None):
        if epoch == 1:
            shutil.copy(checkpoint, tmp_path / "first.keras")
        begin(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Checkpoint, "on_epoch_begin", keep)
        dictionary_inference.main(arguments)
    whole = json.loads((tmp_path / "history.json").read_text())
    (tmp_path / "first.keras").replace(checkpoint)
    (tmp_path / "history.json").write_text(json.dumps({**whole, "finished": False}))
    (tmp_path / "metrics.json").unlink()
    dictionary_inference.main([*arguments, "--resume"])
    again = json.loads((tmp_path / "history.json").read_text())["history"]
    assert again["loss"] == pytest.approx(whole["history"]["loss"], rel=1e-5)


def test_the_account_of_a_resumed_run_is_that_of_an_unbroken_one(monkeypatch):
    import trainer

    words = ["x.py", "--minutes", "8", "--seed", "3", "--resume", "--minutes=2"]
    monkeypatch.setattr(sys, "argv", words)
    assert trainer.origin()["command"] == "python x.py --seed 3"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["/home/me/x.py", "--data-dir=/home/me/babi"], "python x.py --data-dir=babi"),
        (["x.py", "--output", "/data/run/", "--note", "two words"], "x.py --output run --note 'tw"),
        (["x.py", "runs/mine", "--note", "1 / 2"], "python x.py runs/mine --note '1 / 2'"),
    ],
)
def test_the_account_has_the_command_without_places(words, command, monkeypatch):
    import trainer

    monkeypatch.setattr(sys, "argv", words)
    assert command in trainer.origin()["command"]


# A shell's background jobs ignore Ctrl-C, and hand that down; this undoes it.
FROM_A_TERMINAL = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_ctrl_c_says_how_to_resume(tmp_path):
    options = ["--model", "lstm", "--batch-size", "2", "--output", str(tmp_path)]
    command = [sys.executable, "-u", "-c", FROM_A_TERMINAL, str(SCRIPT), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, cwd=SCRIPT.parent, **pipes)
    checkpoint = tmp_path / "checkpoint.keras"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Interrupted. " in output
    assert "00 updates are kept" in output
    assert "--resume" in output.splitlines()[-1]
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--support-size", "0"], "expected a positive integer, received '0'"),
        (["--support-size", "100", "--length", "2"], "support set of 100"),
        (["--learning-rate", "nan"], "expected a positive number, received 'nan'"),
        (["--model", "hebb"], "invalid choice: 'hebb'"),
        (["--seed", "-1"], "at least 0"),
        (["--model", "lstm", "--step-size", "0.08"], "leave it out with lstm"),
        (["--output", "{file}/folder"], "cannot write to the output folder"),
        (["--output", "{new}", "--resume"], "there is no checkpoint"),
        (["--output", "{run}", "--resume", "--seed", "1"], "seed (there 0, here 1)"),
        (["--output", "{run}", "--resume"], "is finished; to train on, begin a new one"),
        (["--output", "{run}", "--start-from", "{run}/model.keras"], "choose another folder"),
        (["--output", "{damaged}", "--resume"], "checkpoint.keras could not be loaded"),
        (
            ["--start-from", "dictionary-4x1-mnm-g", "--model", "mnm-p"],
            "a model of the same kind",
        ),
        (["--evaluate", "no-such-preset"], "Unknown preset"),
        (["--evaluate", "nothing.keras"], "There is no file nothing.keras"),
        (["--evaluate", "{file}.keras"], "could not be loaded"),
        (["--model", "lstm-salu", "--meta-loss-weight", "0.1"], "leave it out with lstm-salu"),
        (["--model", "lstm", "--num-heads", "2"], "leave it out with lstm"),
        (["--model", "lstm-salu", "--rate-per-layer"], "leave it out with lstm-salu"),
        (["--model", "lstm", "--memory-units", "50"], "leave it out with lstm"),
        (["--model", "lstm-salu", "--memory-gain", "2"], "leave it out with lstm-salu"),
        (
            ["--start-from", "dictionary-4x1-mnm-p", "--memory-gain", "2"],
            "leave --memory-gain out with it",
        ),
        (["--evaluate", "maze-mnm-p"], "evaluate another one with the example of its own"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, finished, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "file.keras").write_text("")
    damaged = tmp_path / "damaged"
    shutil.copytree(finished[0], damaged)
    (damaged / "checkpoint.keras").write_bytes(b"PK half")
    history = json.loads((damaged / "history.json").read_text())
    (damaged / "history.json").write_text(json.dumps({**history, "finished": False}))
    places = {
        "damaged": damaged,
        "file": tmp_path / "file",
        "new": tmp_path / "new",
        "run": finished[0],
    }
    with pytest.raises(SystemExit) as stop:
        words = [argument.format(**places) for argument in arguments]
        dictionary_inference.main([*TINY, "--output", str(tmp_path / "other"), *words])
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        dictionary_inference.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in [
        "--support-size",
        "--length",
        "--model",
        "--steps",
        "--batch-size",
        "--learning-rate",
        "--seed",
        "--output",
        "--resume",
        "--backend",
        "--evaluate",
        "--episodes",
    ]:
        assert option in shown
