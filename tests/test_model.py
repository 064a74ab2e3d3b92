"""`keras_mnm.Model` with sequences of several lengths."""

import logging.handlers
import threading

import keras
import numpy as np
import pytest

import keras_mnm
from keras_mnm import backend


class Batches(keras.utils.PyDataset):
    """The first two batches have one length, so that Keras would expect it of the third."""

    lengths = (4, 4, 6)

    def __init__(self):
        super().__init__()
        self.epochs = 0

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        x = rng.standard_normal((2, self.lengths[index], 3)).astype("float32")
        return x, x.sum(axis=(1, 2))[:, None]

    def on_epoch_end(self):
        self.epochs += 1


def make_model(length, layer_class=keras_mnm.MNM):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((length, 3))
    model = keras_mnm.Model(inputs, keras.layers.Dense(1)(layer_class(4)(inputs)))
    jit_compile = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    return model


def test_any_length_equals_each_length_and_runs_the_fused_form(monkeypatch):
    ran, fused = [], keras_mnm.MNM._fused_loop

    def counted(self, inputs, *arguments):
        ran.append(inputs.shape[0])
        return fused(self, inputs, *arguments)

    model, data = make_model(None), Batches()
    with monkeypatch.context() as patch:
        patch.setattr(keras_mnm.MNM, "_fused_loop", counted)
        history = model.fit(data, shuffle=False, verbose=0).history
    assert {4, 6} <= set(ran)
    assert data.epochs >= 1  # some backends begin with one more

    fixed, losses = {}, []
    weights = make_model(None).get_weights()
    for index, length in enumerate(data.lengths):
        one = fixed.setdefault(length, make_model(length))
        one.set_weights(weights)
        losses.append(one.train_on_batch(*data[index], return_dict=True)["loss"])
        weights = one.get_weights()
    np.testing.assert_allclose(history["loss"], np.mean(losses), rtol=1e-4)
    for variable, other in zip(model.trainable_variables, one.trainable_variables):
        found, expected = map(keras.ops.convert_to_numpy, (variable, other))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("eagerly", [False, True])
def test_batches_of_several_lengths_are_evaluated_and_predicted(eagerly):
    model, data = make_model(None, keras.layers.SimpleRNN), Batches()
    model.run_eagerly = eagerly
    expected = [keras.ops.convert_to_numpy(model(x)) for x, _ in map(data.__getitem__, range(3))]
    targets = [y for _, y in map(data.__getitem__, range(3))]
    squares = np.square(np.concatenate(expected) - np.concatenate(targets))
    assert model.evaluate(data, verbose=0) == pytest.approx(squares.mean(), rel=1e-5)
    found = model.predict(data, verbose=0)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-6)
    assert model.fit(data, verbose=0, shuffle=False).history["loss"][0] > 0.0


class Together(Batches):
    """All batches but the first, which is looked at before, are made in pairs."""

    lengths = (4, 4, 6, 5)

    def __init__(self):
        super().__init__()
        self.workers, self.calls = 2, 0
        self.pair = threading.Barrier(2, timeout=60)

    def __getitem__(self, index):
        self.calls += 1
        if self.calls > 1:
            self.pair.wait()
        return super().__getitem__(index)


@pytest.mark.skipif(not backend.ONE_TRACE_FOR_ALL_SHAPES, reason="Keras's own workers run there")
def test_workers_make_batches_side_by_side_and_in_order():
    model, data = make_model(None, keras.layers.SimpleRNN), Together()
    alone = Batches()
    alone.lengths = data.lengths
    expected = model.predict(alone, verbose=0)
    np.testing.assert_allclose(model.predict(data, verbose=0), expected, rtol=1e-5)


def test_many_lengths_bring_no_warning_of_retracing():
    data = Batches()
    data.lengths = range(1, 9)
    found, logger = logging.handlers.BufferingHandler(100), logging.getLogger("tensorflow")
    logger.addHandler(found)
    try:
        make_model(None, keras.layers.SimpleRNN).fit(data, verbose=0, shuffle=False)
    finally:
        logger.removeHandler(found)
    assert not [record.getMessage() for record in found.buffer]


def test_evaluate_and_predict_take_any_length():
    model, data = make_model(None, keras.layers.SimpleRNN), Batches()
    validated = model.fit(data, validation_data=data, verbose=0, shuffle=False).history
    found = model.evaluate(data, verbose=0, return_dict=True)
    assert validated["val_loss"] == pytest.approx([found["loss"]], rel=1e-5)
    for x, _ in (data[0], data[2]):
        expected = keras.ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-6)


class Endless(Batches):
    """Batches without end, each a list, and counted epochs."""

    def __init__(self):
        super().__init__()
        self.begun = 0

    num_batches = None

    def __len__(self):
        raise TypeError("endless")

    def __getitem__(self, index):
        return list(super().__getitem__(index % 3))

    def on_epoch_begin(self):
        self.begun += 1


def test_batches_without_end_and_callbacks_of_every_kind():
    model, data, seen = make_model(None, keras.layers.SimpleRNN), Endless(), []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    for callbacks in (callback, [callback], keras.callbacks.CallbackList([callback], model=model)):
        model.fit(data, steps_per_epoch=4, epochs=2, callbacks=callbacks, verbose=0, shuffle=False)
    assert seen == [0, 1] * 3
    assert data.begun >= 6
    assert data.epochs >= 6
    data.workers = 2
    before = data.epochs
    model.fit(data, steps_per_epoch=4, verbose=0, shuffle=False)
    assert data.epochs > before


class TwoInputs(Batches):
    """The first input in two parts, and what was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        x, y = super().__getitem__(index)
        return [x[..., :1], x[..., 1:]], y


def test_batches_of_several_inputs_are_shuffled_as_keras_does():
    parts = [keras.Input((None, 1)), keras.Input((None, 2))]
    both = keras.layers.Concatenate()(parts)
    model = keras_mnm.Model(parts, keras.layers.Dense(1)(keras.layers.SimpleRNN(4)(both)))
    model.compile("sgd", "mse", jit_compile=keras.backend.backend() != "torch")
    orders = {}
    for shuffle in (True, False):
        keras.utils.set_random_seed(0)
        data = TwoInputs()
        model.fit(data, epochs=20, shuffle=shuffle, verbose=0)
        orders[shuffle] = data.asked
    assert orders[True] != orders[False]
    assert orders[False][-3:] == [0, 1, 2]


def test_evaluation_data_is_told_of_its_epochs():
    model, data = make_model(None, keras.layers.SimpleRNN), Batches()
    model.evaluate(data, verbose=0)
    once = data.epochs
    assert once >= 1
    model.fit(Batches(), validation_data=data, verbose=0, shuffle=False)
    assert data.epochs > once


class Labels(Batches):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], np.array([0, 2])


def test_class_weights_of_some_classes():
    inputs = keras.Input((None, 3))
    model = keras_mnm.Model(inputs, keras.layers.SimpleRNN(3, "softmax")(inputs))
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", jit_compile=False)
    losses = []
    for index in range(3):
        x, labels = Labels()[index]
        found = keras.ops.convert_to_numpy(model(x))
        losses += list(-np.log(found[range(2), labels]) * [2.0, 1.0])
    history = model.fit(Labels(), class_weight={0: 2.0}, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx([np.mean(losses)], rel=1e-4)


class Numbered(keras_mnm.tasks.Episodes):
    """Targets that tell the epoch."""

    def draw(self, rng, batch_size):
        return np.zeros((batch_size, 4, 3)), np.full((batch_size, 3), float(self.epoch))


@pytest.mark.parametrize("length", [4, None])
def test_episodes_begin_with_the_first_epoch_and_go_on(length):
    inputs = keras.Input((length, 3))
    model = keras_mnm.Model(inputs, keras.layers.SimpleRNN(3)(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    data, unseen = Numbered(steps=3, first_epoch=2), Numbered(steps=3, first_epoch=5)
    options = {"shuffle": False, "verbose": 0}
    history = model.fit(data, epochs=2, validation_data=unseen, **options).history
    assert history["loss"] == pytest.approx([2.0**2, 3.0**2])
    assert history["val_loss"] == pytest.approx([5.0**2, 6.0**2])
    assert model.fit(data, **options).history["loss"] == pytest.approx([4.0**2])
    assert model.evaluate(unseen, verbose=0) == pytest.approx(7.0**2)


def test_a_model_is_functional():
    """Keras makes the class itself a functional one, so that subclasses never differ from that."""

    class Own(keras_mnm.Model):
        def __init__(self):
            super().__init__()

    with pytest.raises(TypeError, match=r"^Model\.__init__.*'inputs' and 'outputs'"):
        Own()


def test_no_accelerator_on_a_cpu():
    with keras.device("cpu"):
        assert backend.accelerator() is None
