"""The plastic network against Miconi et al.'s equations in plain loops."""

import finite_differences
import keras
import numpy as np
import pytest
from keras import ops

import keras_mnm

B, T, FEATURES, UNITS = 3, 6, 2, 4
OPTIONS = {"return_sequences": True, "return_state": True, "dtype": "float64"}
KINDS = pytest.mark.parametrize("homogeneous", [False, True])


def randomized(homogeneous, **options):
    layer = keras_mnm.Plastic(UNITS, homogeneous, **{**OPTIONS, **options})
    layer.build((None, T, FEATURES))
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.uniform(-1, 1, weight.shape))
    layer.cell.rate.assign(0.3)
    return layer


def data():
    return np.random.default_rng(1).standard_normal((B, T, FEATURES))


def plain(layer, x):
    """One sample, connection by connection: outputs, and the trace at the end."""
    cell = layer.cell
    kernel, recurrent, alpha, eta, bias = (
        ops.convert_to_numpy(w)
        for w in (cell.kernel, cell.recurrent_kernel, cell.plasticity, cell.rate, cell.bias)
    )
    alpha = np.broadcast_to(alpha, recurrent.shape)
    h, trace, outputs = np.zeros(UNITS), np.zeros((UNITS, UNITS)), []
    for inputs in x:
        new = np.empty(UNITS)
        for j in range(UNITS):
            total = bias[j] + sum(inputs[k] * kernel[k, j] for k in range(FEATURES))
            for i in range(UNITS):
                total += (recurrent[i, j] + alpha[i, j] * trace[i, j]) * h[i]
            new[j] = np.tanh(total)
        for i in range(UNITS):
            for j in range(UNITS):
                trace[i, j] = (1 - eta) * trace[i, j] + eta * h[i] * new[j]
        h = new
        outputs.append(h)
    return np.array(outputs), trace.ravel()


@KINDS
def test_outputs_and_trace_match_the_equations(homogeneous):
    layer, x = randomized(homogeneous), data()
    outputs, last, trace = map(ops.convert_to_numpy, layer(x))
    for sample in range(B):
        expected, expected_trace = plain(layer, x[sample])
        np.testing.assert_allclose(outputs[sample], expected, rtol=1e-10)
        np.testing.assert_allclose(last[sample], expected[-1], rtol=1e-10)
        np.testing.assert_allclose(trace[sample], expected_trace, rtol=1e-10, atol=1e-12)


@KINDS
def test_gradients_match_finite_differences(homogeneous):
    layer, x = randomized(homogeneous), data()

    def loss():
        outputs, _, trace = layer(x)
        return ops.sum(ops.sin(outputs)) + ops.sum(ops.square(trace))

    assert len(layer.trainable_variables) == 5
    rng = np.random.default_rng(2)
    finite_differences.check_gradients(loss, layer.trainable_variables, rng, 1e-6)


@KINDS
def test_chunks_and_masks(homogeneous):
    layer, x = randomized(homogeneous), data()
    whole = layer(x)
    states = layer(x[:, :4])[1:]
    rest = layer(x[:, 4:], initial_state=states)
    for one, other in zip(rest, [whole[0][:, 4:], *whole[1:]]):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=1e-10
        )
    mask = np.arange(T) < 4
    masked = layer(x, mask=np.broadcast_to(mask, (B, T)))
    for one, other in zip(masked[1:], states):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=1e-10
        )


@KINDS
def test_saved_and_loaded(homogeneous, tmp_path):
    inputs = keras.Input((T, FEATURES))
    layer = keras_mnm.Plastic(UNITS, homogeneous, "relu", initial_rate=0.2, return_sequences=True)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = data().astype("float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert loaded.layers[-1].get_config() == layer.get_config()


def test_homogeneous_has_one_plasticity():
    sizes = [randomized(kind).cell.plasticity.shape for kind in (True, False)]
    assert [tuple(size) for size in sizes] == [(1, 1), (UNITS, UNITS)]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"units": 0}, "`units`.*0"), ({"units": 3, "initial_rate": 2.0}, "`initial_rate`.*2.0")],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.Plastic(**options)


def test_an_initial_state_is_whole():
    layer, x = randomized(False), data()
    with pytest.raises(ValueError, match="`initial_state` must be 2 tensors"):
        layer(x, initial_state=layer(x)[1:2])


def test_plasticity_is_drawn_apart_and_the_rate_begins_small():
    cell = keras_mnm.PlasticCell(4)
    cell.build((None, 2))
    kernel, plasticity = map(ops.convert_to_numpy, (cell.recurrent_kernel, cell.plasticity))
    assert not np.allclose(kernel, plasticity)
    assert ops.convert_to_numpy(cell.rate) == pytest.approx(0.01)


def test_options_are_used():
    cell = keras_mnm.PlasticCell(64, initial_rate=0.3)
    cell.build((None, 2))
    assert ops.convert_to_numpy(cell.rate) == pytest.approx(0.3)
    for weight in map(ops.convert_to_numpy, (cell.recurrent_kernel, cell.plasticity)):
        assert weight.min() >= 0.0
        assert 0.009 < weight.max() <= 0.01
    outputs = keras_mnm.Plastic(4, activation="relu")(np.full((1, 3, 2), 100.0, "float32"))
    assert ops.convert_to_numpy(outputs).max() > 1.0
