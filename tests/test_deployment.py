"""Saving, exporting and quantizing: each cell of the table in docs/deployment.md."""

import importlib.util
import os
import subprocess
import sys

import golden_models
import keras
import numpy as np
import pytest

import keras_mnm

BACKEND = keras.backend.backend()
T, FEATURES, UNITS, D = 5, 2, 6, 4


def make(kind):
    """A model, and inputs of it: whole sequences, or three steps with the states in and out."""
    keras.utils.set_random_seed(0)
    rule, form = kind.split()
    if form == "streaming":
        layer = keras_mnm.MNM(UNITS, D, write_rule=rule, return_sequences=True, return_state=True)
        sequences = keras.Input((3, FEATURES))
        states = [keras.Input((size,)) for size in layer.cell.state_size]
        outputs = layer(sequences, initial_state=states)
        model = keras_mnm.Model([sequences, *states], list(outputs))
    else:
        inputs = keras.Input((T, FEATURES))
        model = keras_mnm.Model(inputs, keras_mnm.MNM(UNITS, D, write_rule=rule)(inputs))
    rng = np.random.default_rng(1)
    x = [rng.uniform(-0.5, 0.5, (2, *i.shape[1:])).astype("float32") for i in model.inputs]
    model(x if len(x) > 1 else x[0])
    return model, x


def run_under(backend, program, *arguments):
    """Runs Python under a backend, in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, "KERAS_BACKEND": backend})


KINDS = ["local whole", "gradient whole", "local streaming", "gradient streaming"]


def check(model, x, found):
    expected = model.predict(x if len(x) > 1 else x[0], verbose=0)
    expected = expected if isinstance(expected, list) else [expected]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(np.array(other), one, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2tf, of itself
@pytest.mark.parametrize("kind", KINDS)
def test_saved_model(kind, tmp_path):
    if BACKEND == "torch":
        pytest.skip("Keras exports no SavedModel from torch")
    import tensorflow as tf

    model, x = make(kind)
    model.export(tmp_path / "model", format="tf_saved_model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    found = served.serve(*([x] if len(x) > 1 else x))
    check(model, x, found if isinstance(found, (list, tuple)) else [found])


EXPORT = """
import sys, keras, keras_mnm
model = keras.saving.load_model(sys.argv[1])
inputs = [keras.ops.zeros((2, *each.shape[1:])) for each in model.inputs]
model(inputs if len(inputs) > 1 else inputs[0])
model.export(sys.argv[2], format="onnx", verbose=False)
"""


def check_onnx(model, x, path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    check(model, x, session.run(None, dict(zip(names, x, strict=True))))


def test_checkpoints_of_tensorflow(tmp_path):
    if BACKEND != "tensorflow":
        pytest.skip("they are TensorFlow's")
    import tensorflow as tf

    model, _ = make("local whole")
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    other, _ = make("local whole")
    other.set_weights([np.zeros(weight.shape) for weight in other.weights])
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    for found, expected in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def skip_without_onnx():
    for package in ("tf2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it is in the extra 'onnx'")


@pytest.mark.filterwarnings("default")  # of the converter
@pytest.mark.parametrize("kind", KINDS)
def test_onnx(kind, tmp_path):
    skip_without_onnx()
    model, x = make(kind)
    path = str(tmp_path / "model.onnx")
    if BACKEND == "tensorflow":
        model.export(path, format="onnx", verbose=False)
    elif kind == "gradient streaming":  # by way of TensorFlow
        model.save(tmp_path / "model.keras")
        run_under("tensorflow", EXPORT, tmp_path / "model.keras", path)
    else:
        pytest.skip("the export itself is TensorFlow's, tested there")
    check_onnx(model, x, path)


@pytest.mark.filterwarnings("default")  # of the converter
@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_onnx_of_the_plain_loop(rule, tmp_path):
    """Under the local rule alone."""
    if BACKEND != "tensorflow":
        pytest.skip("the export itself is TensorFlow's, tested there")
    skip_without_onnx()
    inputs = keras.Input((T, FEATURES))
    loop = keras.layers.RNN(keras_mnm.MNMCell(UNITS, D, write_rule=rule))
    model = keras_mnm.Model(inputs, loop(inputs))
    x = np.random.default_rng(0).standard_normal((2, T, FEATURES)).astype("float32")
    model(x)
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    if rule == "local":
        check_onnx(model, [x], path)
    else:
        with pytest.raises(Exception, match="BroadcastGradientArgs"):
            check_onnx(model, [x], path)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_int8(rule, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((T, 16))
    layer = keras_mnm.MNM(16, write_rule=rule)
    model = keras.Model(inputs, keras.layers.Dense(3)(layer(inputs)))
    x = np.random.default_rng(0).standard_normal((8, T, 16)).astype("float32")
    expected = model.predict(x, verbose=0)
    model.quantize("int8")
    parts = layer.cell.interaction, layer.cell.rate, layer.cell.output_projection
    assert {part.quantization_mode for part in parts} == {"int8"}
    error = np.abs(model.predict(x, verbose=0) - expected).max()
    assert 0.0 < error < 0.05 * np.abs(expected).max()
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="variables"):  # as the page says: quantize after loading
        keras.saving.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("path", sorted(golden_models.GOLDEN.glob("*.keras")), ids=lambda p: p.stem)
def test_models_of_earlier_versions(path):
    model = keras.saving.load_model(path)
    with np.load(path.with_suffix(".npz")) as arrays:
        found = keras.ops.convert_to_numpy(model(arrays["x"]))
        np.testing.assert_allclose(found, arrays["y"], rtol=1e-4, atol=1e-5)


OTHER_BACKEND = """
import sys, numpy, keras, keras_mnm
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], keras.ops.convert_to_numpy(model(numpy.load(sys.argv[2]))))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_model_saved_here_is_loaded_there(backend, tmp_path):
    if backend == BACKEND:
        pytest.skip("the same backend")
    if "tensorflow" not in (backend, BACKEND):
        pytest.skip("both are tried with TensorFlow")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; it is the extra '{backend}'")
    model, (x,) = make("local whole")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    files = [tmp_path / name for name in ("model.keras", "x.npy", "y.npy")]
    run_under(backend, OTHER_BACKEND, *files)
    check(model, [x], [np.load(tmp_path / "y.npy")])
