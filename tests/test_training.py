"""What `compile` and `fit` offer works with the meta objective: callbacks, optimizers, weights."""

import csv
import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_mnm

T, FEATURES = 4, 2
RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, T, FEATURES)).astype("float32")
LABELS = RNG.integers(0, 3, 10)


def make_model(optimizer="adam", seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((T, FEATURES))
    outputs = keras.layers.Dense(3)(keras_mnm.MNM(4, 3)(inputs))
    model = keras_mnm.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def fit(model, callbacks=(), epochs=4):
    options = {"epochs": epochs, "batch_size": 5, "shuffle": False, "verbose": 0}
    data = {"x": X, "y": LABELS, "validation_data": (X[:5], LABELS[:5])}
    return model.fit(**data, **options, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("floatx", "dtype"), [("float32", "float64"), ("float64", "float32"), ("bfloat16", None)]
)
def test_a_layer_of_another_type_than_the_loss(floatx, dtype):
    keras.config.set_floatx(floatx)
    layers = [keras.Input((T, FEATURES)), keras_mnm.MNM(4, 3, dtype=dtype), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    history = model.fit(X, X[:, 0, :1], epochs=2, verbose=0).history
    assert all(np.isfinite(float(loss)) for loss in history["loss"])


def test_logs_on_disk(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no TensorBoard here"
    )
    import tensorflow as tf  # Keras writes for TensorBoard with it, on all backends

    model = make_model()
    callbacks = [
        keras_mnm.MemoryMonitor(X[:2]),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
    ]
    history = fit(model, callbacks, epochs=2).history
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "meta_loss", "val_meta_loss", "memory_norm", "write_norm"):
        found = [float(row[name]) for row in rows]
        np.testing.assert_allclose(found, history[name], rtol=1e-5, err_msg=name)
    for folder, name in (("train", "meta_loss"), ("validation", "val_meta_loss")):
        events = event_accumulator.EventAccumulator(
            str(tmp_path / "board" / folder), size_guidance={"tensors": 0}
        )
        events.Reload()
        tensors = events.Tensors("epoch_meta_loss")
        found = [tf.make_ndarray(event.tensor_proto) for event in tensors]
        np.testing.assert_allclose(found, history[name], rtol=1e-5)


def test_early_stopping_on_the_meta_loss():
    model = make_model()
    with pytest.raises(ValueError, match="mode='min'"):  # docs/training.md says so
        fit(model, [keras.callbacks.EarlyStopping("val_meta_loss")])
    stop = keras.callbacks.EarlyStopping(
        "val_meta_loss", mode="min", patience=2, min_delta=1e9, restore_best_weights=True
    )
    weights = {}
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.setdefault(epoch, model.get_weights())
    )
    history = fit(model, [keep, stop], epochs=9).history
    assert len(history["val_meta_loss"]) == 3
    for found, expected in zip(model.get_weights(), weights[0], strict=True):
        np.testing.assert_array_equal(found, expected)


class KilledError(Exception):
    """Stands for a process that ends in the middle of training."""


def test_backup_and_restore_equals_unbroken_training(tmp_path):
    unbroken = make_model()
    fit(unbroken)

    def kill(epoch, logs):
        if epoch == 1:
            raise KilledError

    backup = lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KilledError):
        fit(make_model(), [backup(), keras.callbacks.LambdaCallback(on_epoch_end=kill)])
    epochs = []
    count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    resumed = make_model(seed=1)
    fit(resumed, [backup(), count])
    assert epochs == [2, 3]
    for found, expected in zip(resumed.get_weights(), unbroken.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    for variable, other in zip(
        resumed.optimizer.variables, unbroken.optimizer.variables, strict=True
    ):
        found, expected = map(ops.convert_to_numpy, (variable, other))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6, err_msg=variable.path)


OPTIMIZERS = [
    keras.optimizers.SGD,
    functools.partial(keras.optimizers.AdamW, weight_decay=0.0),  # which needs no gradient
    keras.optimizers.Lion,
    keras.optimizers.Adafactor,
    functools.partial(keras.optimizers.Muon, weight_decay=0.0, adam_weight_decay=0.0),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["SGD", "AdamW", "Lion", "Adafactor", "Muon"])
def test_any_optimizer_trains_every_weight(make):
    model = make_model(make(learning_rate=0.01))
    before = {v.path: ops.convert_to_numpy(v).copy() for v in model.trainable_variables}
    loss = model.train_on_batch(X, LABELS, return_dict=True)["loss"]
    assert np.isfinite(loss)
    for variable in model.trainable_variables:
        after = ops.convert_to_numpy(variable)
        assert np.isfinite(after).all()
        assert not np.array_equal(after, before[variable.path]), variable.path


@pytest.mark.parametrize(
    ("clip", "size"),
    [
        ({"global_clipnorm": 0.01}, lambda steps: np.sqrt(sum(np.sum(s**2) for s in steps))),
        ({"clipnorm": 0.01}, lambda steps: max(np.sqrt(np.sum(s**2)) for s in steps)),
        ({"clipvalue": 0.01}, lambda steps: max(np.abs(s).max() for s in steps)),
    ],
    ids=["global_clipnorm", "clipnorm", "clipvalue"],
)
def test_gradients_are_clipped(clip, size):
    model = make_model(keras.optimizers.SGD(1.0, **clip))
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.train_on_batch(X, LABELS)
    steps = [
        ops.convert_to_numpy(v) - b for v, b in zip(model.trainable_variables, before, strict=True)
    ]
    assert size(steps) == pytest.approx(0.01, rel=1e-3)


def test_weights_of_samples_and_classes_are_those_of_the_task():
    """They weigh the task's loss; the memory learns to store from every sample alike."""
    model = make_model()
    logits = model.predict(X, verbose=0)
    each = -ops.convert_to_numpy(ops.log_softmax(logits))[np.arange(10), LABELS]
    meta_loss = model.evaluate(X, LABELS, verbose=0, return_dict=True)["meta_loss"]
    class_weight = {0: 0.5, 1: 2.0, 2: 0.0}
    weights = np.array([class_weight[label] for label in LABELS], "float32")
    expected = np.mean(weights * each) + meta_loss
    logs = model.evaluate(X, LABELS, sample_weight=weights, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["meta_loss"] == pytest.approx(meta_loss, rel=1e-4)
    logs = model.train_on_batch(X, LABELS, class_weight=class_weight, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)
