"""`NeuralMemory` and `BFPF` as layers among others: what a Keras user tries with any layer."""

import finite_differences
import keras
import numpy as np
import pytest
from keras import ops
from reference import array

import keras_mnm

B, H, D, DEPTH = 3, 2, 4, 2

KINDS = {
    "bfpf": lambda **options: keras_mnm.BFPF(D, DEPTH, "tanh", **options),
    "local": lambda **options: keras_mnm.NeuralMemory(D, DEPTH, **options),
    "gradient": lambda **options: keras_mnm.NeuralMemory(D, DEPTH, "gradient", **options),
}
kinds = pytest.mark.parametrize("kind", KINDS)
X = np.random.default_rng(0).uniform(-1, 1, (B, H, D)).astype("float32")
HALF = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]


def build(kind, **options):
    """A layer with biases that are not zero, and what it should make of `X`."""
    layer = KINDS[kind](**options)
    layer(X)
    rng = np.random.default_rng(1)
    for weight in layer.trainable_variables:
        weight.assign(rng.uniform(-0.8, 0.8, weight.shape))
    return layer, expected(layer, X)


def expected(layer, x):
    """`q^l(v) = σ(W^l v + b^l)` for each memory layer, or `M^2 σ(M^1 k)`, head by head."""
    size = DEPTH * D if isinstance(layer, keras_mnm.BFPF) else D
    outputs = np.zeros((*x.shape[:-1], size))
    for place in np.ndindex(*x.shape[:-1]):
        if isinstance(layer, keras_mnm.BFPF):
            for layer_number in range(DEPTH):
                own = slice(layer_number * D, (layer_number + 1) * D)
                kernel, bias = array(layer.kernel)[:, own], array(layer.bias)[own]
                outputs[place][own] = np.tanh(kernel.T @ x[place] + bias)
        else:
            first, second = (array(matrix).T for matrix in layer.initial_memory)
            outputs[place] = second @ np.tanh(first @ x[place])
    return outputs


def configs(layer):
    """The layer's config, and that of its feedback without what it was built for."""
    config = layer.get_config()
    feedback = config.pop("feedback", None)
    return config, feedback and feedback["config"]


@kinds
def test_outputs_and_symbolic_shapes(kind):
    layer, outputs = build(kind)
    np.testing.assert_allclose(array(layer(X)), outputs, atol=1e-6)
    symbolic = layer(keras.Input((None, D)))
    assert symbolic.shape == (None, None, outputs.shape[-1])
    assert layer.compute_output_shape(X.shape) == outputs.shape


@kinds
def test_time_distributed(kind):
    layer, outputs = build(kind)
    found = keras.layers.TimeDistributed(layer)(np.stack([X, X[::-1]], axis=1))
    np.testing.assert_allclose(array(found), np.stack([outputs, outputs[::-1]], axis=1), atol=1e-6)


# Reading alone needs no feedback, and Keras says that nothing trains it.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables .*feedback/")
@kinds
@pytest.mark.parametrize("jit_compile", [True, False])
def test_in_a_model_that_trains(kind, jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("on torch the guides leave jit_compile out")
    layer, outputs = build(kind)
    model = keras.Sequential([keras.Input((H, D)), keras.layers.Dense(D), layer])
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit_compile)
    history = model.fit(X, outputs, batch_size=2, epochs=4, verbose=0).history  # 2 and 1
    assert history["loss"][-1] < history["loss"][0]


@kinds
def test_files_and_copies(kind, tmp_path):
    layer, outputs = build(kind, name="named")
    model = keras.Sequential([keras.Input((H, D)), layer])
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    for other in (keras.saving.load_model(tmp_path / "model.keras"), clone):
        np.testing.assert_allclose(array(other(X)), outputs, atol=1e-6)
        assert configs(other.get_layer("named")) == configs(layer)


@kinds
def test_float64_is_kept(kind):
    layer, _ = build(kind, dtype="float64")
    x = X.astype("float64")
    np.testing.assert_allclose(array(layer(x)), expected(layer, x), atol=1e-14)


@kinds
@pytest.mark.parametrize("policy", HALF)
def test_half_precision(kind, policy):
    layer, outputs = build(kind, dtype=policy)
    # A memory sums up small changes, and so computes in float32; its feedback alone need not.
    half = keras.DTypePolicy(policy).compute_dtype
    compute_dtype = half if kind == "bfpf" else "float32"
    found = layer(X)
    assert keras.backend.standardize_dtype(found.dtype) == compute_dtype
    tolerance = 1e-6 if compute_dtype == "float32" else 2e-2
    np.testing.assert_allclose(array(ops.cast(found, "float32")), outputs, atol=tolerance)


def test_gradients_of_the_feedback_match_finite_differences():
    layer, _ = build("bfpf", dtype="float64")
    rng = np.random.default_rng(2)
    values = keras.Variable(rng.standard_normal((B, D)), dtype="float64", name="values")
    loss = lambda: ops.sum(ops.square(layer(values.value)))
    finite_differences.check_gradients(loss, [values, *layer.trainable_variables], rng)


def test_every_option_of_the_feedback_survives_and_counts():
    options = {
        "activation": "relu",
        "use_bias": True,
        "kernel_initializer": keras.initializers.Constant(0.5),
        "bias_initializer": "ones",
        "kernel_regularizer": keras.regularizers.L2(0.1),
        "kernel_constraint": keras.constraints.MaxNorm(0.1),
        "name": "feeds_back",
    }
    layer = keras_mnm.BFPF(D, 3, **options)
    copy = keras_mnm.BFPF.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    predictions = copy(np.ones((B, D), "float32"))
    np.testing.assert_allclose(array(predictions), 0.5 * D + 1.0)
    assert array(copy.losses[0]) == pytest.approx(0.1 * 0.25 * 3 * D * D)
    columns = np.linalg.norm(array(copy.kernel.constraint(copy.kernel)), axis=0)
    np.testing.assert_allclose(columns, 0.1, rtol=1e-4)
    without = keras_mnm.BFPF.from_config(keras_mnm.BFPF(D, use_bias=False).get_config())
    without.build((None, D))
    assert [weight.name for weight in without.weights] == ["kernel"]


def test_each_kernel_of_the_feedback_has_the_fans_of_its_own_layer():
    layer = keras_mnm.BFPF(64, 8)
    layer.build((None, 64))
    limit = np.sqrt(6 / (64 + 64))
    assert 0.98 * limit < np.abs(array(layer.kernel)).max() <= limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "`units` must be an integer of at least 1. Received: units=0"),
        ({"units": D, "depth": -1}, "`depth`.*depth=-1"),
    ],
)
def test_bad_arguments_of_the_feedback(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.BFPF(**arguments)


def test_the_feedback_says_which_values_it_takes():
    with pytest.raises(ValueError, match=r"values of 4 units.*shape \(3, 5\)"):
        keras_mnm.BFPF(D)(np.zeros((3, 5)))


def test_kernels_of_the_feedback_are_drawn_apart():
    layer = keras_mnm.BFPF(D, DEPTH)
    layer(X)
    first, second = np.split(array(layer.kernel), DEPTH, axis=1)
    assert not np.allclose(first, second)
