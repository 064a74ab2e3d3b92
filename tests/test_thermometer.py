"""`Thermometer` against plain loops: outputs and gradients."""

import math

import finite_differences
import keras
import numpy as np
import pytest
from keras import ops
from reference import array

import keras_mnm

X = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4)).astype("float32")
X[0, 1] = 0.0
X[1, 2, :3] = 0.0
AT = [-1.0, -0.5, 0.0, 0.5, 1.0]
SHARPNESS = 3.0


def make(**options):
    return keras_mnm.Thermometer(5, SHARPNESS, **options)


def test_outputs_are_those_of_plain_loops():
    layer, found = make(), array(make()(X))
    assert found.shape == (2, 3, 8) == layer.compute_output_shape(X.shape)
    for place in np.ndindex(2, 3):
        *others, last = X[place].tolist()
        steps = [math.tanh(SHARPNESS * (last - at)) if X[place].any() else 0.0 for at in AT]
        np.testing.assert_allclose(found[place], [*others, *steps], atol=1e-6)
    assert not found[0, 1].any()
    assert found[1, 2, 3:].all()  # a number among zeros is an input


def test_gradients_are_the_slopes_of_the_steps():
    layer = make()
    variable = keras.Variable(X)
    (found,) = finite_differences.gradients(lambda: ops.sum(layer(variable)), [variable])
    expected = np.ones_like(X)
    for place in np.ndindex(2, 3):
        slopes = [SHARPNESS / math.cosh(SHARPNESS * (X[place][-1] - at)) ** 2 for at in AT]
        expected[place][-1] = sum(slopes) if X[place].any() else 0.0
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_in_a_saved_model_with_a_mask(tmp_path):
    inputs = keras.Input((None, 4))
    masked = keras.layers.Masking()(inputs)
    outputs = make(name="code")(masked)
    model = keras.Model(inputs, keras.layers.LSTM(3)(outputs))
    assert model.get_layer("code").output.shape == (None, None, 8)
    before = array(model(X))
    changed = X.copy()
    changed[0] = X[0][[1, 0, 2]]  # the step without an input is masked, wherever it stands
    np.testing.assert_allclose(array(model(changed)), before, atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(again(X)), before, atol=1e-6)
    assert again.get_layer("code").get_config() == model.get_layer("code").get_config()


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_half_precision_is_of_the_outputs_alone(dtype):
    close = np.array([[1.0, 0.9], [1.0, 0.9015]], "float32")
    found = keras_mnm.Thermometer(dtype=dtype)(close)
    assert keras.backend.standardize_dtype(found.dtype) == keras.DTypePolicy(dtype).compute_dtype
    expected = array(keras_mnm.Thermometer()(close))
    np.testing.assert_allclose(array(found), expected, atol=4e-3)


def test_shapes_and_the_default_sharpness():
    assert make().compute_output_shape((None, None, None)) == (None, None, None)
    assert array(make()(np.array([[0.5]]))).shape == (1, 5)
    assert keras_mnm.Thermometer().sharpness == 20.0
    assert keras_mnm.Thermometer(63).sharpness == 40.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresholds": 1}, "`thresholds`.*at least 2.*1"),
        ({"thresholds": 2.5}, "`thresholds`.*2.5"),
        ({"sharpness": -1.0}, "`sharpness`.*-1.0"),
        ({"sharpness": 0.0}, "`sharpness`.*0.0"),
        ({"sharpness": math.inf}, "`sharpness`.*inf"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.Thermometer(**arguments)
