"""Double copy and priority sort from the command line; what they share is tested by dictionary."""

import json
import shutil
import types

import double_copy
import experiment
import keras
import learning_curves
import make_preset
import numpy as np
import priority_sort
import pytest
import trainer

import keras_mnm

TINY = ["--steps", "4", "--batch-size", "4", "--episodes", "20"]
RUNS = [
    (double_copy, ["--length", "3", "--model", "lstm"], {"length": 3}),
    (
        double_copy,
        ["--length", "3", "--model", "mnm-g", "--step-size", "0.04"],
        {"length": 3, "step_size": 0.04},
    ),
    (
        priority_sort,
        ["--vectors", "4", "--sorted-vectors", "3", "--model", "lstm-salu"],
        {"vectors": 4, "sorted_vectors": 3},
    ),
    (
        priority_sort,
        ["--vectors", "4", "--sorted-vectors", "3", "--model", "lstm", "--thresholds", "5"],
        {"vectors": 4, "sorted_vectors": 3, "thresholds": 5},
    ),
    (
        priority_sort,
        ["--vectors", "4", "--sorted-vectors", "3", "--model", "lstm-salu", "--num-heads", "2"],
        {"vectors": 4, "sorted_vectors": 3, "num_heads": 2},
    ),
    (
        priority_sort,
        ["--vectors", "4", "--sorted-vectors", "3", "--rate-per-layer"],
        {"vectors": 4, "sorted_vectors": 3, "rate_per_layer": True},
    ),
    (
        priority_sort,
        ["--vectors", "4", "--sorted-vectors", "3", "--memory-units", "7"],
        {"vectors": 4, "sorted_vectors": 3, "memory_units": 7},
    ),
    (
        priority_sort,
        [
            *("--vectors", "4", "--sorted-vectors", "3"),
            "--model",
            "lstm-salu",
            "--memory-units",
            "7",
        ],
        {"vectors": 4, "sorted_vectors": 3, "memory_units": 7},
    ),
    (
        priority_sort,
        ["--vectors", "4", "--sorted-vectors", "3", "--memory-gain", "2"],
        {"vectors": 4, "sorted_vectors": 3, "memory_gain": 2.0},
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

    example.main(["--evaluate", str(tmp_path), "--episodes", "20"])
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again == pytest.approx(figures)
    for layer in experiment.open_model(str(tmp_path)).layers:
        if isinstance(layer, keras_mnm.MNM):
            assert layer.cell.step_size == instance.get("step_size")
            assert layer.cell.rate_per_layer == instance.get("rate_per_layer", False)
            assert layer.cell.memory_initializer.gain == instance.get("memory_gain", 1.0)
        if isinstance(layer, keras_mnm.MNM | keras_mnm.SALU):
            assert layer.cell.num_heads == instance.get("num_heads", 1)
            assert layer.cell.memory_units == instance.get("memory_units", 100)

    account = experiment.account_of(tmp_path)
    assert account["updates"] == 4
    assert len(account["history"]["loss"]) == len(account["seconds"]) == 1
    assert experiment.task_of(account["settings"]) is example.TASK


def test_a_step_size_is_changed_on_purpose_alone(tmp_path):
    def make_model(**options):
        return keras.Sequential([keras.Input((3, 2)), keras_mnm.MNM(4, 4, **options)])

    make_model(step_size=0.25).save(tmp_path / "model.keras")
    for other in (make_model(), make_model(step_size=1.0)):
        with pytest.raises(ValueError, match=r"keep it with --step-size 0\.25"):
            experiment.take_weights(other, str(tmp_path / "model.keras"))
    experiment.take_weights(make_model(step_size=1.0), str(tmp_path / "model.keras"), 1.0)
    make_model(step_size=0.5).save(tmp_path / "model.keras")
    experiment.take_weights(make_model(), str(tmp_path / "model.keras"))


def test_gradient_writes_begin_where_local_ones_ended(tmp_path):
    def make_model(rule):
        return keras.Sequential([keras.Input((3, 2)), keras_mnm.MNM(4, 4, write_rule=rule)])

    local, gradient = make_model("local"), make_model("gradient")
    local.save(tmp_path / "local.keras")
    experiment.take_weights(gradient, str(tmp_path / "local.keras"))
    cells = [model.layers[0].cell for model in (local, gradient)]
    assert len(cells[0].weights) == len(cells[1].weights) + len(cells[0].feedback.weights)
    for name in ("controller", "memory", "interaction", "rate", "output_projection"):
        theirs, ours = [getattr(cell, name).weights for cell in cells]
        for expected, found in zip(theirs, ours, strict=False):  # the memory's feedback is last
            np.testing.assert_array_equal(found, expected)
    gradient.save(tmp_path / "gradient.keras")
    with pytest.raises(ValueError, match="a model of the same kind"):
        experiment.take_weights(local, str(tmp_path / "gradient.keras"))


@pytest.mark.parametrize("example", [double_copy, priority_sort])
def test_a_model_of_another_task_gets_one_sentence(example, capsys):
    with pytest.raises(SystemExit):
        example.main(["--evaluate", "dictionary-4x1-mnm-p"])
    errors = capsys.readouterr().err
    assert f"expected one of {example.TASK.title}" in errors
    assert errors.count("\n") == 1


def test_a_run_that_ended_before_its_time_tells_what_made_it(lstm_run, tmp_path):
    shutil.copytree(lstm_run, tmp_path / "run")
    whole = experiment.account_of(tmp_path / "run")
    assert 0 <= whole.pop("figures")["symbol_accuracy"] <= 1  # what only a whole one has
    (tmp_path / "run" / "metrics.json").unlink()
    assert experiment.account_of(tmp_path / "run") == whole


def test_figures_count_mistakes():
    targets = np.array([[0, 1], [1, 1]])
    figures = double_copy.TASK.figures(np.eye(2)[[[0, 1], [0, 1]]], targets)
    assert figures == {"symbol_accuracy": 0.75, "sequence_accuracy": 0.5}
    bits = np.zeros((2, 3, 8))
    logits = np.full((2, 3, 8), -1.0)
    logits[0, 0, :4] = 1.0
    figures = priority_sort.TASK.figures(logits, bits)
    assert figures == {"wrong_bits_per_sequence": 2.0, "bit_accuracy": 1.0 - 4 / 48}
    assert not priority_sort.TASK.solved({"wrong_bits": 2.0})
    assert priority_sort.TASK.solved({"wrong_bits": 0.0})


def test_a_run_ends_after_four_epochs_without_a_mistake():
    done = lambda *values: double_copy.TASK.is_done({}, {"sequence_accuracy": list(values)})
    assert done(0.5, 1.0, 1.0, 1.0, 1.0)
    assert not done(1.0, 1.0, 1.0)
    assert not done(1.0, 0.9, 1.0, 1.0, 1.0)


def test_the_learning_rate_falls_to_a_twentieth():
    rate = trainer.make_optimizer(0.2, 10)._learning_rate
    assert [float(rate(step)) for step in (0, 10)] == pytest.approx([0.2, 0.01])


def test_fresh_episodes_are_none_of_trainings():
    embedding = keras.layers.Embedding(12, 12)
    model = keras.Sequential([keras.Input((10,)), embedding, keras.layers.Cropping1D((4, 0))])
    fresh, _ = double_copy.TASK.fresh_episodes(model, 20, seed=0)
    seen, _ = double_copy.TASK.episodes({"length": 3}, batch_size=20, seed=0)[0]
    assert not np.array_equal(fresh, seen)


@pytest.mark.skipif(trainer.fcntl is None, reason="this system has no file locks")
def test_a_folder_has_one_run_at_a_time(tmp_path):
    run, other = (trainer.Run(tmp_path, {"steps": 4, "seed": seed}) for seed in (0, 1))
    for each in (run, other):
        each.open(resume=False)
    with (
        run.running(),
        pytest.raises(ValueError, match="another process trains in"),
        other.running(),
    ):
        pass
    with run.running():
        (tmp_path / "checkpoint.keras").touch()
        (tmp_path / "history.json").write_text('{"finished": false}')
    with pytest.raises(ValueError, match="an unfinished run"), other.running():
        pass


def test_a_run_that_went_on_elsewhere_is_not_put_back(lstm_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(lstm_run, folder)
    history = json.loads((folder / "history.json").read_text())
    (folder / "history.json").write_text(json.dumps({**history, "finished": False}))
    run = trainer.Run(folder, json.loads((folder / "settings.json").read_text()))
    run.open(resume=True)
    (folder / "history.json").write_text(json.dumps(history))  # as if another process ended it
    with pytest.raises(ValueError, match="went on in another process"), run.running():
        pass


def test_a_file_system_without_locks_takes_runs(tmp_path, monkeypatch):
    def no_lock(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(
        trainer, "fcntl", types.SimpleNamespace(LOCK_EX=2, LOCK_NB=4, flock=no_lock)
    )
    with trainer.Run(tmp_path, {"steps": 4}).running():
        pass


def test_a_result_without_its_checkpoint_is_kept(lstm_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(lstm_run, folder)
    (folder / "checkpoint.keras").unlink()
    with pytest.raises(SystemExit):
        double_copy.main([*TINY, "--length", "3", "--model", "lstm", "--output", str(folder)])
    assert "holds a finished run; choose another folder" in capsys.readouterr().err


def test_the_last_epoch_is_validated_too(tmp_path):
    run = trainer.Run(tmp_path, {"steps": 5, "steps_per_epoch": 1, "seed": 0})
    model = keras.Sequential([keras.Input((151,)), keras.layers.Embedding(12, 12)])
    model.add(keras.layers.Cropping1D((51, 0)))
    loss, metrics = double_copy.TASK.loss_and_metrics()
    trainer.compile_model(model, 0.1, 5, loss, metrics)
    data = keras_mnm.tasks.DoubleCopy(batch_size=2)
    run.train(model, data, trainer.Validation(data, 2, "accuracy"))
    looks = [value is not None for value in run.history["val_accuracy"]]
    assert looks == [False, True, False, True, True]


def test_wrong_bits_is_a_mean_over_samples():
    metric = keras_mnm.WrongBits()
    targets, logits = np.ones((2, 3, 8)), np.full((2, 3, 8), 0.5)
    logits[0, 0, :4] = -0.5
    metric.update_state(targets, logits)
    assert float(metric.result()) == 2.0
    with pytest.raises(ValueError, match=r"\(2, 3, 8\) and logits of shape \(2, 8\)"):
        metric.update_state(targets, logits[:, 0])
    with pytest.raises(ValueError, match=r"\(1, 3, 8\) and logits of shape \(2, 3, 8\)"):
        metric.update_state(targets[:1], logits)
    metric.reset_state()
    metric.update_state(targets, logits, sample_weight=np.array([1.0, 0.0]))
    assert float(metric.result()) == 4.0


def test_a_model_with_wrong_bits_is_loaded_as_it_was(tmp_path):
    inputs = keras.Input((3, 8))
    model = keras.Model(inputs, keras.layers.Dense(8)(inputs))
    model.compile("sgd", "mse", metrics=[keras_mnm.WrongBits()])
    bits = np.random.default_rng(0).integers(2, size=(4, 3, 8)).astype("float32")
    figures = model.evaluate(bits, bits, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(bits, bits, verbose=0, return_dict=True) == pytest.approx(figures)


def test_sequence_accuracy_checks_shapes_and_weighs_samples():
    metric = keras_mnm.SequenceAccuracy()
    targets, predictions = np.array([[0, 1], [1, 1], [1, 0]]), np.eye(2)[[[0, 1], [1, 0], [1, 0]]]
    for form in (targets, targets[..., None]):
        metric.reset_state()
        metric.update_state(form, predictions)
        assert float(metric.result()) == pytest.approx(2 / 3)
    for weights in ([1.0, 3.0, 0.0], [[1.0], [3.0], [0.0]]):
        metric.reset_state()
        metric.update_state(targets, predictions, sample_weight=np.array(weights))
        assert float(metric.result()) == pytest.approx(1 / 4)
    metric.reset_state()
    unasked = np.array([[-1, -1], [0, 1]])
    metric.update_state(unasked, predictions[[0, 1]], sample_weight=np.array([3.0, 1.0]))
    assert float(metric.result()) == 0.0
    with pytest.raises(ValueError, match=r"weighs samples, not symbols.*\(3, 2\)"):
        metric.update_state(targets, predictions, sample_weight=np.ones((3, 2)))
    for wrong in (targets[:, 0], targets[:, :1], targets[:2]):
        with pytest.raises(ValueError, match=r"targets \[B, l\].*Received targets of shape"):
            metric.update_state(wrong, predictions)

    for form in (targets, targets[..., None]):  # one model for both would be traced again
        model = keras.Sequential([keras.Input((2, 2)), keras.layers.Identity()])
        model.compile(
            loss="sparse_categorical_crossentropy", metrics=[keras_mnm.SequenceAccuracy()]
        )
        figures = model.evaluate(predictions, form, verbose=0, return_dict=True)
        assert figures["sequence_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("recurrent", "answer_length", "message"),
    [
        (keras.layers.LSTM(4), 2, "return_sequences=True"),
        (keras.layers.LSTM(4, return_sequences=True, return_state=True), 2, "not return_state"),
        (keras.layers.Dense(4), 2, "a recurrent layer"),
        (keras.layers.LSTM(4, return_sequences=True), 0, "`answer_length`.*0"),
        (keras.layers.LSTM(4, return_sequences=True), 6, "at most the number of steps, 5"),
    ],
)
def test_task_models_check_their_arguments(recurrent, answer_length, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.vector_model(recurrent, 3, 5, answer_length, 2)
    with pytest.raises(ValueError, match=message):
        keras_mnm.token_model(recurrent, 7, 5, answer_length)


@pytest.fixture(scope="module")
def lstm_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    double_copy.main([*TINY, "--length", "3", "--model", "lstm", "--output", str(folder)])
    return folder


def test_a_run_becomes_a_preset(lstm_run, tmp_path, monkeypatch, capsys):
    preset, results = tmp_path / "copy", tmp_path / "results"
    make_preset.main([str(lstm_run), str(preset), "--episodes", "9", "--results", str(results)])
    card = keras_mnm.list_presets(tmp_path)["copy"]
    assert card["description"] == "LSTM on double copy, length 3."
    assert card["metrics"]["episodes"] == 9
    account = json.loads((results / "copy.json").read_text())
    assert account["evaluation"] == card["metrics"]
    assert keras_mnm.from_preset("copy", source=tmp_path).output_shape == (None, 6, 12)

    again = ["--start-from", str(lstm_run), "--seed", "1", "--output", str(tmp_path / "again")]
    double_copy.main([*TINY, "--length", "3", "--model", "lstm", *again])
    both = [str(tmp_path / "again"), str(tmp_path / "mean"), "--average-with", str(lstm_run)]
    make_preset.main([*both, "--episodes", "9", "--results", str(results)])
    models = [
        keras.saving.load_model(run / "model.keras") for run in (lstm_run, tmp_path / "again")
    ]
    mean = keras_mnm.from_preset("mean", source=tmp_path).get_weights()
    for found, one, other in zip(mean, *(model.get_weights() for model in models)):
        np.testing.assert_allclose(found, (one + other) / 2, rtol=1e-5, atol=1e-7)
    training = keras_mnm.list_presets(tmp_path)["mean"]["training"]
    assert training["averaged_with"][0]["command"] == card["training"]["command"]

    foreign = tmp_path / "foreign"
    shutil.copytree(lstm_run, foreign)
    metrics = json.loads((foreign / "metrics.json").read_text())
    metrics["settings"]["model"] = "mnm-g"
    (foreign / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(SystemExit):
        make_preset.main([str(lstm_run), str(tmp_path / "no"), "--average-with", str(foreign)])
    assert f"{foreign} is a run of mnm-g, {lstm_run} of lstm" in capsys.readouterr().err

    monkeypatch.setenv("KERAS_MNM_PRESETS", str(tmp_path))
    later = ["--start-from", "copy", "--output", str(tmp_path / "later")]
    double_copy.main([*TINY, "--length", "3", "--model", "lstm", *later])
    account = experiment.account_of(tmp_path / "later")
    assert account["started_from"] == card["training"]  # and not what the preset is later
    monkeypatch.chdir(lstm_run)  # whose account is not the preset's
    assert experiment.account_behind("copy") == card["training"]
    experiment.write_start(tmp_path / "later", str(tmp_path / "mean" / "model.keras"))
    assert experiment.account_of(tmp_path / "later")["started_from"] == training


def test_what_cannot_be_packed_is_told_before_it_is_measured(
    lstm_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(double_copy.TASK, "measure", None)
    damaged = tmp_path / "damaged"
    shutil.copytree(lstm_run, damaged)
    (damaged / "history.json").write_text("")
    (tmp_path / "file").write_text("")
    for words, message in (
        ([lstm_run, tmp_path / "my preset"], "The folder's name becomes the preset's"),
        ([lstm_run, tmp_path / "mine", "--results", tmp_path / "file" / "x"], "cannot write"),
        ([lstm_run, tmp_path / "file" / "mine"], "cannot write"),
        ([damaged, tmp_path / "mine"], f"{damaged} holds no run to tell of"),
    ):
        with pytest.raises(SystemExit):
            make_preset.main(list(map(str, words)))
        assert message in capsys.readouterr().err


def test_the_best_model_by_validation_is_the_result(tmp_path):
    run = trainer.Run(tmp_path, {"steps": 5, "steps_per_epoch": 1})
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    run._begin(model)
    validation = trainer.Validation(None, 1, "accuracy")
    for number, value in enumerate([0.2, 0.9, None, 0.9, 0.5]):
        model.set_weights([np.full((1, 1), number, "float32")])
        logs = {"loss": 1.0} | ({} if value is None else {"val_accuracy": value})
        run.keep(model, 0.1, logs, validation)
    assert run.train(model, None, validation).get_weights()[0] == 1


def test_options_reach_the_run(tmp_path, monkeypatch):
    made = []

    def stop(*arguments, **options):
        made.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Run, "train_or_tell", stop)
    words = "--length 3 --model lstm --steps 5 --steps-per-epoch 2 --batch-size 3 --seed 4"
    output = ["--learning-rate", "0.25", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        double_copy.main([*words.split(), *output])
    run, model, data, _ = made
    expected = keras_mnm.tasks.DoubleCopy(3, batch_size=3, steps=2, seed=4)
    np.testing.assert_array_equal(data[0][0], expected[0][0])
    assert (run.settings["steps"], len(data), model.optimizer.global_clipnorm) == (6, 2, 10.0)
    assert float(model.optimizer._learning_rate(0)) == 0.25
    assert not run.is_complete()
    run.history = {"loss": [0.0] * 4, "sequence_accuracy": [1.0] * 4}
    assert run.is_complete()
    layer = double_copy.TASK.recurrent_layer("mnm-p", meta_loss_weight=0.5)
    assert layer.meta_loss_weight == 0.5


def test_training_ends_once_a_run_is_done(tmp_path):
    done = lambda history: len(history.get("loss", ())) == 2
    run = trainer.Run(tmp_path, {"steps": 9, "steps_per_epoch": 1, "seed": 0}, done)
    layers = [keras.layers.Embedding(12, 12), keras.layers.Cropping1D((4, 0))]
    model = keras.Sequential([keras.Input((10,)), *layers])
    trainer.compile_model(model, 0.1, 9, *double_copy.TASK.loss_and_metrics())
    run.train(model, keras_mnm.tasks.DoubleCopy(3, batch_size=2, steps=1))
    assert run.updates == 2


def test_an_interrupted_checkpoint_does_not_count(tmp_path, monkeypatch, capsys):
    save = trainer.Run._save

    def interrupted(run, model, name):
        if run.epoch == 2:
            raise KeyboardInterrupt
        save(run, model, name)

    monkeypatch.setattr(trainer.Run, "_save", interrupted)
    options = ["--steps-per-epoch", "2", "--model", "lstm", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        double_copy.main([*TINY, "--length", "3", *options])
    assert "2 updates are kept" in capsys.readouterr().out


def test_learning_curves_take_finished_runs_from_scratch(lstm_run, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_curves, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match="is of double-copy-3; the figures show dictionary-4x1"):
        learning_curves.record([lstm_run])
    panels = {"double-copy-3": ("double copy", "accuracy")}
    monkeypatch.setattr(learning_curves, "FIGURES", {"copy": ("double copy", panels)})
    learning_curves.record([lstm_run])
    assert [path.name for path in tmp_path.iterdir()] == ["double-copy-3-lstm-seed0.json"]
    with pytest.raises(ValueError, match="no finished run"):
        learning_curves.record([tmp_path])
    other = tmp_path / "other"
    shutil.copytree(lstm_run, other)
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["settings"]["learning_rate"] = 0.5
    (other / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match="differ in more than their seeds: learning_rate"):
        learning_curves.record([other])

    later = ["--start-from", str(lstm_run / "model.keras"), "--output", str(tmp_path / "later")]
    double_copy.main([*TINY, "--length", "3", "--model", "lstm", *later])
    assert experiment.account_of(tmp_path / "later")["started_from"]["updates"] == 4
    with pytest.raises(ValueError, match="weights of another run"):
        learning_curves.record([tmp_path / "later"])
