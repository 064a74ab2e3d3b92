"""The memory's operations, step by step, and their pictures."""

import keras
import numpy as np
import pytest
import reference

import keras_mnm
from keras_mnm.visualize import learning_curve, memory_maps


def make_model(**options):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(7, 4, mask_zero=True)(tokens)
    return keras.Model(tokens, keras_mnm.MNM(5, 3, name="mnm", **options)(embedded))


@pytest.mark.parametrize(
    "options", [{"num_heads": 2}, {"write_rule": "gradient"}, {"rate_per_layer": True}]
)
def test_trace_matches_the_equations(options):
    model = make_model(**options)
    tokens = np.array([[1, 2, 3, 1, 2], [6, 5, 4, 3, 2]])
    found = keras_mnm.memory_trace(model, tokens)
    embedded = keras.ops.convert_to_numpy(model.layers[1](tokens))
    layer = model.get_layer("mnm")
    assert found.rates.shape[-1] == (3 if "rate_per_layer" in options else 1)
    for sample in range(len(tokens)):
        expected = []
        reference.run(
            reference.cell_parameters(layer.cell),
            embedded[sample],
            heads=options.get("num_heads", 1),
            rule=options.get("write_rule", "local"),
            trace=expected,
        )
        for name, arrays in zip(found._fields[:5], zip(*expected)):
            array = getattr(found, name)[sample]
            wanted = np.stack(arrays)[..., : array.shape[-1]]
            np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_norms_are_those_of_the_memory():
    model = make_model(memory_depth=2)
    tokens = np.array([[1, 2, 3, 1, 2], [6, 5, 4, 3, 2]])
    found = keras_mnm.memory_trace(model, tokens)
    layer = model.get_layer("mnm")
    initial = [keras.ops.convert_to_numpy(matrix) for matrix in layer.cell.memory.initial_memory]
    loop = keras.layers.RNN(layer.cell, return_state=True)
    written = [np.zeros((2, 2, 3, 3))]
    for steps in range(1, 6):
        _, *states = loop(model.layers[1](tokens[:, :steps]))
        memory = layer.cell.unpack_state(states).memory
        written.append(
            np.stack([keras.ops.convert_to_numpy(m).reshape(2, 3, 3) for m in memory], axis=1)
        )
    written = np.stack(written, axis=1)
    norm = lambda x: np.sqrt(np.sum(x**2, axis=(2, 3, 4)))
    np.testing.assert_allclose(found.memory_norms, norm(np.stack(initial) + written), rtol=1e-5)
    np.testing.assert_allclose(found.write_norms, norm(np.diff(written, axis=1)), rtol=1e-3)


def test_monitor_logs_norms_and_stops_a_memory_that_blows_up(tmp_path):
    def train(step_size, *callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((20, 3)), keras_mnm.MNM(8, step_size=step_size)])
        model.compile("adam", "mse")
        x = np.random.default_rng(0).standard_normal((4, 20, 3)).astype("float32")
        callbacks = [keras_mnm.MemoryMonitor(x[:2], max_growth=10), *callbacks]
        return model.fit(x, np.zeros((4, 8)), verbose=0, callbacks=callbacks).history

    history = train(None, keras.callbacks.CSVLogger(tmp_path / "log.csv"))
    assert 4 < history["memory_norm"][0] < 20  # three orthogonal matrices at first, 24**0.5
    assert 0.0 < history["write_norm"][0] < history["memory_norm"][0]
    assert "memory_norm" in (tmp_path / "log.csv").read_text()
    with pytest.raises(ValueError, match=r"norm became .* in epoch 1.*initial memory has 4\.9"):
        train(50.0)


def test_the_monitor_logs_the_largest_norms():
    model = keras.Sequential([keras.Input((5, 2)), keras_mnm.MNM(4, step_size=2.0)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.random.default_rng(0).standard_normal((3, 5, 2)).astype("float32")
    callbacks = [keras_mnm.MemoryMonitor(x)]
    history = model.fit(x, np.zeros((3, 4)), verbose=0, callbacks=callbacks).history
    trace = keras_mnm.memory_trace(model, x)
    assert history["memory_norm"][0] == pytest.approx(trace.memory_norms[:, -1].max(), rel=1e-5)
    assert history["write_norm"][0] == pytest.approx(trace.write_norms.max(), rel=1e-5)


def test_the_monitor_takes_an_empty_memory_of_zeros_and_no_nan():
    options = {"memory_depth": 1, "memory_initializer": "zeros", "write_rule": "gradient"}
    model = keras.Sequential([keras.Input((5, 2)), keras_mnm.MNM(4, **options)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = np.ones((1, 5, 2), "float32"), np.zeros((1, 4))
    train = lambda x: model.fit(x, y, verbose=0, callbacks=[keras_mnm.MemoryMonitor(x)]).history
    assert 0.0 < train(x)["memory_norm"][0] < 10.0
    with pytest.raises(ValueError, match="norm became nan in epoch 1"):
        train(x * np.nan)


def test_trace_follows_the_layer_backwards():
    model = make_model(go_backwards=True)
    other = make_model()
    other.set_weights(model.get_weights())
    tokens = np.array([[1, 2, 3, 4]])
    backwards = keras_mnm.memory_trace(model, tokens)
    forwards = keras_mnm.memory_trace(other, tokens[:, ::-1])
    np.testing.assert_allclose(backwards.values, forwards.values, rtol=1e-6)


def test_the_layer_to_trace():
    tokens = np.array([[1, 2, 3]])
    with pytest.raises(ValueError, match="the MNM layers: none"):
        keras_mnm.memory_trace(keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(2)]), None)
    inputs = keras.Input((3, 2))
    first = keras_mnm.MNM(4, return_sequences=True, name="first")(inputs)
    model = keras.Model(inputs, keras_mnm.MNM(4, name="second")(first))
    x = np.ones((1, 3, 2), "float32")
    with pytest.raises(ValueError, match="the MNM layers: first, second"):
        keras_mnm.memory_trace(model, x)
    by_name = keras_mnm.memory_trace(model, x, "second")
    by_layer = keras_mnm.memory_trace(model, x, model.layers[2])
    np.testing.assert_array_equal(by_name.values, by_layer.values)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor = keras_mnm.MemoryMonitor(x, layer="second")
    logs = model.fit(x, np.zeros((1, 4)), verbose=0, callbacks=[monitor]).history
    assert logs["memory_norm"][0] == pytest.approx(by_name.memory_norms[:, -1].max(), rel=1e-5)
    with pytest.raises(ValueError, match="one MNM layer"):
        keras_mnm.memory_trace(make_model(), tokens, make_model().layers[1])


def test_a_trace_leaves_the_layers_before_as_they_are():
    inputs = keras.Input(batch_shape=(2, 3, 2))
    first = keras_mnm.MNM(4, return_sequences=True, stateful=True, name="first")
    model = keras.Model(inputs, keras_mnm.MNM(4, name="second")(first(inputs)))
    x = np.ones((2, 3, 2), "float32")
    first.reset_state()
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    traces = [keras_mnm.memory_trace(model, x, "second") for _ in range(2)]
    np.testing.assert_array_equal(traces[0].write_keys, traces[1].write_keys)
    for found, expected in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), expected)
    open_length = keras.Input((None, 2))
    model = keras.Model(open_length, keras_mnm.MNM(4)(open_length))
    with pytest.raises(ValueError, match=r"a step at least.*\(1, 0, 2\)"):
        keras_mnm.memory_trace(model, x[:1, :0])


def test_monitor_says_before_training_what_it_cannot_trace():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.memory = keras_mnm.MNM(4)

        def call(self, x):
            return self.memory(x)

    x = np.ones((2, 3, 2), "float32")
    subclassed = Subclassed()
    wrapped = keras.Sequential([keras.Input((3, 2)), keras.layers.Bidirectional(keras_mnm.MNM(4))])
    for model, message in (
        (subclassed, "functional or sequential model"),
        (wrapped, "within other layers.*MNM layers: none"),
    ):
        model(x)
        model.compile("sgd", "mse")
        before = model.get_weights()
        with pytest.raises(ValueError, match=message):
            model.fit(x, np.ones((2, 1)), verbose=0, callbacks=[keras_mnm.MemoryMonitor(x)])
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_pictures(tmp_path):
    model, tokens = make_model(num_heads=2), np.array([[1, 2, 3, 1]])
    labels = ["mary", "went", "home", "?"]
    memory_maps(model, tokens, labels, tmp_path / "maps.png", "a story", queries=slice(2, None))
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    for inputs, names in ((tokens, labels[:3]), (np.tile(tokens, (2, 1)), labels)):
        with pytest.raises(ValueError, match="one sequence with a label for each step"):
            memory_maps(model, inputs, names, tmp_path / "none.png", "a story")
    assert not (tmp_path / "none.png").exists()

    history = {"loss": [2.0, 1.0], "accuracy": [0.1, 0.5], "val_accuracy": [None, 0.4]}
    learning_curve(history, tmp_path / "curve.png", "a run")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_map_has_reads_by_the_writes_before_them(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    shown, imshow = [], Axes.imshow
    monkeypatch.setattr(
        Axes, "imshow", lambda axes, x, **options: shown.append(x) or imshow(axes, x, **options)
    )
    model, tokens = make_model(num_heads=2), np.array([[1, 2, 3, 1]])
    memory_maps(model, tokens, list("abcd"), tmp_path / "maps.png", "a story")
    trace = keras_mnm.memory_trace(model, tokens)
    read, written = trace.readouts[0].mean(axis=1), trace.values[0].mean(axis=1)
    expected = np.full((4, 4), np.nan)
    for i in range(4):
        for j in range(i + 1):
            norms = np.linalg.norm(read[i]) * np.linalg.norm(written[j])
            expected[i, j] = read[i] @ written[j] / norms
    np.testing.assert_allclose(np.array(shown[0]), expected, rtol=1e-4, atol=1e-6)
    keys = trace.write_keys[0].reshape(4, -1)
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    past, found = np.tril_indices(4), np.array(shown[2])
    np.testing.assert_allclose(found[past], (keys @ keys.T)[past], rtol=1e-4, atol=1e-6)
    labels, queries = list("abcd"), slice(2, None)
    memory_maps(model, tokens, labels, tmp_path / "maps.png", "a story", queries=queries)
    np.testing.assert_array_equal(shown[3], np.array(shown[0])[queries])


def test_a_layer_of_two_models_is_traced_in_the_first():
    layer = keras_mnm.MNM(4)
    first, second = (
        keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
        for inputs in (keras.Input((5, 3)), keras.Input((5, 3)))
    )
    x = np.ones((2, 5, 3), "float32")
    assert keras_mnm.memory_trace(first, x).values.shape == (2, 5, 1, 4)
    with pytest.raises(ValueError, match="was in another model; trace that model"):
        keras_mnm.memory_trace(second, x)
    second.compile("sgd", "mse")
    with pytest.raises(ValueError, match="was in another model"):
        second.fit(x, np.ones((2, 1)), verbose=0, callbacks=[keras_mnm.MemoryMonitor(x)])


def test_a_trace_begins_empty():
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 2)), keras_mnm.MNM(4, stateful=True)])
    x = np.ones((2, 3, 2), "float32")
    before = keras_mnm.memory_trace(model, x)
    model(x)
    np.testing.assert_array_equal(keras_mnm.memory_trace(model, x).readouts, before.readouts)
