"""Double copy and priority sort from the command line; what they share is tested by dictionary."""

import json

import double_copy
import experiment
import numpy as np
import priority_sort
import pytest

TINY = ["--steps", "4", "--batch-size", "4", "--episodes", "20"]
RUNS = [
    (double_copy, ["--length", "3", "--model", "lstm"], {"length": 3}),
    (double_copy, ["--length", "3", "--model", "mnm-g"], {"length": 3}),
    (
        priority_sort,
        ["--vectors", "4", "--sorted-vectors", "3", "--model", "lstm-salu"],
        {"vectors": 4, "sorted_vectors": 3},
    ),
]


@pytest.mark.parametrize(("example", "arguments", "instance"), RUNS)
def test_training_and_evaluation(example, arguments, instance, tmp_path, capsys):
    example.main([*TINY, *arguments, "--output", str(tmp_path)])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["updates"] == 4
    assert instance.items() <= metrics["settings"].items()
    assert metrics["training_seconds"] > 0
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")

    example.main(["--evaluate", str(tmp_path / "model.keras"), "--episodes", "20"])
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again == pytest.approx(figures)

    account = experiment.account_of(tmp_path)
    assert account["updates"] == 4
    assert len(account["history"]["loss"]) == len(account["seconds"]) == 1
    assert experiment.task_of(account["settings"]) is example.TASK


@pytest.mark.parametrize("example", [double_copy, priority_sort])
def test_a_model_of_another_task_gets_one_sentence(example, capsys):
    with pytest.raises(SystemExit):
        example.main(["--evaluate", "dictionary-4x1-mnm-p"])
    errors = capsys.readouterr().err
    assert f"expected one of {example.TASK.title}" in errors
    assert errors.count("\n") == 1


def test_figures_count_mistakes():
    targets = np.array([[0, 1], [1, 1]])
    figures = double_copy.TASK.figures(np.eye(2)[[[0, 1], [0, 1]]], targets)
    assert figures == {"symbol_accuracy": 0.75, "sequence_accuracy": 0.5}
    bits = np.zeros((2, 3, 8))
    logits = np.full((2, 3, 8), -1.0)
    logits[0, 0, :4] = 1.0
    figures = priority_sort.TASK.figures(logits, bits)
    assert figures == {"wrong_bits": 2.0, "bit_accuracy": 1.0 - 4 / 48}
    assert not priority_sort.TASK.solved({"wrong_bits": 2.0})
