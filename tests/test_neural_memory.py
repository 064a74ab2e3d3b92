import itertools

import finite_differences
import keras
import numpy as np
import pytest
import reference
from keras import ops

import keras_mnm

B, H, D = 3, 2, 4


def random_memory(rng, memory, batch=B):
    """A memory for every sample, as the package's states and in the paper's orientation."""
    matrices = rng.uniform(-1, 1, (batch, memory.depth, D, D))
    return [to_state(memory, layer, matrices[:, layer]) for layer in range(memory.depth)], matrices


def to_state(memory, layer, matrices):
    """States hold what was written to φ_0, for `z @ M`; the paper has `M z`."""
    initial = ops.convert_to_numpy(memory.initial_memory[layer])
    return (matrices.swapaxes(-1, -2) - initial).reshape(-1, D * D)


def to_matrices(memory, layer, state):
    initial = ops.convert_to_numpy(memory.initial_memory[layer])
    return (ops.convert_to_numpy(state).reshape(-1, D, D) + initial).swapaxes(-1, -2)


def make(rule, depth, dtype="float64", **options):
    memory = keras_mnm.NeuralMemory(D, depth, rule, dtype=dtype, **options)
    memory.build()
    if memory.feedback is not None:
        memory.feedback.bias.assign(np.linspace(-0.3, 0.3, depth * D))
    return memory


def expected_activations(memory, values, depth):
    feedback = memory.feedback
    kernel, bias = (np.asarray(ops.convert_to_numpy(w), "float64") for w in feedback.weights)
    flat = values @ kernel + bias
    return flat.reshape(*values.shape[:-1], depth, D)


@pytest.mark.parametrize("output_activation", ["linear", "tanh"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_read_write_and_error_match_the_equations(rule, depth, output_activation, precision):
    dtype, tolerance = precision
    rng = np.random.default_rng(depth)
    memory = make(rule, depth, dtype, output_activation=output_activation)
    states, matrices = random_memory(rng, memory)
    states = [ops.convert_to_tensor(state, dtype) for state in states]
    keys, values = rng.uniform(-1, 1, (2, B, H, D))
    rate = rng.uniform(0, 1, (B, depth))
    sigma = {"linear": reference.linear, "tanh": reference.tanh}[output_activation]

    read = memory.read(keys, states)
    error = memory.recall_error(keys, values, states)
    written = memory.write(keys, values, rate, states)

    for sample in range(B):
        own, arguments = list(matrices[sample]), {"output_activation": sigma}
        np.testing.assert_allclose(
            ops.convert_to_numpy(read)[sample],
            reference.read(own, keys[sample], **arguments),
            atol=tolerance,
        )
        np.testing.assert_allclose(
            ops.convert_to_numpy(error)[sample],
            reference.recall_error(own, keys[sample], values[sample], **arguments),
            atol=tolerance,
        )
        if rule == "local":
            pull = expected_activations(memory, values[sample], depth)
            after = reference.local_write(
                own, keys[sample], pull, rate[sample], 2 / (H * D), **arguments
            )
        else:
            after = reference.gradient_write(
                own, keys[sample], values[sample], rate[sample], 2 / (H * D), **arguments
            )
        for layer in range(depth):
            np.testing.assert_allclose(
                to_matrices(memory, layer, written[layer])[sample],
                after[layer],
                atol=tolerance,
            )


@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_gradients_through_two_writes_match_finite_differences(rule):
    rng = np.random.default_rng(1)
    memory = make(rule, 3, train_initial_memory=True)
    keys, values = (
        keras.Variable(rng.uniform(-1, 1, (2, B, H, D)), dtype="float64", name=name)
        for name in ("keys", "values")
    )
    rate = keras.Variable(rng.uniform(0.2, 0.8, (2, B, 3)), dtype="float64", name="rate")

    def loss():
        states = memory.get_initial_state(B)
        for t in range(2):
            states = memory.bind(keys[t], values[t], rate[t], states)
        return ops.sum(ops.square(memory.recall(keys[0], states) - values[1]))

    variables = [keys, values, rate, *memory.trainable_variables]
    finite_differences.check_gradients(loss, variables, rng)


def test_gradient_write_is_a_sparse_distributed_memory_write_minus_what_is_stored():
    """Appendix C, Eq. 10: M² ← M² + v aᵀ - v̂ aᵀ, for a fixed binary address layer."""
    rng = np.random.default_rng(2)

    def address(x):  # Eq. 7: 1 within the Hamming radius, else 0; no gradient passes
        return ops.cast(ops.greater_equal(x, 0.0), x.dtype)

    memory = make("gradient", 2, step_size=1.0, activation=address)
    _, matrices = random_memory(rng, memory, batch=1)
    first = np.sign(matrices[0, 0])
    states = [to_state(memory, 0, first), to_state(memory, 1, matrices[0, 1])]
    key, value = np.sign(rng.uniform(-1, 1, (1, 1, D))), rng.uniform(-1, 1, (1, 1, D))
    written = memory.write(key, value, 1.0, [ops.convert_to_tensor(s) for s in states])

    a = (first @ key[0, 0] >= 0).astype(float)
    stored = matrices[0, 1] @ a
    np.testing.assert_allclose(ops.convert_to_numpy(written[0]), states[0])
    np.testing.assert_allclose(
        to_matrices(memory, 1, written[1])[0],
        matrices[0, 1] + np.outer(value[0, 0], a) - np.outer(stored, a),
        atol=1e-12,
    )


@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_rate_zero_writes_nothing(rule):
    memory = make(rule, 2)
    states = memory.get_initial_state(B)
    keys, values = np.random.default_rng(3).uniform(-1, 1, (2, B, H, D))
    for before, after in zip(states, memory.write(keys, values, 0.0, states), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(before), ops.convert_to_numpy(after))


@pytest.mark.parametrize("rule", ["local", "gradient"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_default_step_size_keeps_the_memory_bounded(rule, rate):
    rng = np.random.default_rng(4)
    memory = keras_mnm.NeuralMemory(16, 3, rule)
    states = memory.get_initial_state(1)
    for _ in range(200):
        keys, values = np.tanh(rng.standard_normal((2, 1, 1, 16)))
        states = memory.write(keys, values, rate, states)
    matrices = memory.matrices(states)
    largest = max(np.abs(ops.convert_to_numpy(matrix)).max() for matrix in matrices)
    assert largest < 10


def test_initial_memory_is_the_same_for_all_samples_and_fixed():
    memory = keras_mnm.NeuralMemory(D)
    states = memory.get_initial_state(5)
    assert [tuple(state.shape) for state in states] == [(5, D * D)] * 3
    matrices = [ops.convert_to_numpy(matrix) for matrix in memory.matrices(states)]
    for matrix, initial in zip(matrices, memory.initial_memory, strict=True):
        np.testing.assert_array_equal(matrix, np.tile(ops.convert_to_numpy(initial), (5, 1, 1)))
    assert not np.allclose(matrices[0], matrices[1])
    assert not {id(v) for v in memory.initial_memory} & {id(v) for v in memory.trainable_variables}
    trained = make("local", 3, train_initial_memory=True)
    assert len(trained.trainable_variables) == len(memory.trainable_variables) + 3


def test_feedback_of_the_users_own():
    mlp = keras.Sequential([keras.layers.Dense(7, "tanh"), keras.layers.Dense(2 * D)])
    memory = keras_mnm.NeuralMemory(D, depth=2, feedback=mlp)
    states = memory.get_initial_state(B)
    keys, values = np.random.default_rng(5).uniform(-1, 1, (2, B, H, D))
    written = memory.write(keys, values, 1.0, states)
    expected = ops.convert_to_numpy(mlp(values.reshape(-1, D))).reshape(B, H, 2, D)
    own = [to_matrices(memory, layer, states[layer])[0] for layer in range(2)]
    after = reference.local_write(own, keys[0], expected[0], [1.0, 1.0], 2 / (H * D))
    for layer in range(2):
        found = to_matrices(memory, layer, written[layer])[0]
        np.testing.assert_allclose(found, after[layer], atol=1e-5)
    with pytest.raises(ValueError, match=r"feedback.*Received a layer with output shape"):
        keras_mnm.NeuralMemory(D, depth=3, feedback=keras.layers.Dense(D)).build()


def test_config_round_trip():
    memory = keras_mnm.NeuralMemory(
        D,
        2,
        step_size=0.1,
        activation="relu",
        output_activation="tanh",
        initializer=keras.initializers.Orthogonal(0.5),
        train_initial_memory=True,
        feedback=keras_mnm.BFPF(D, 2, "tanh", use_bias=False, kernel_regularizer="l2"),
        name="remembers",
    )
    config = memory.get_config()
    copy = keras_mnm.NeuralMemory.from_config(config)
    assert copy.get_config() == config
    for name in ("step_size", "activation", "output_activation", "train_initial_memory"):
        assert getattr(copy, name) == getattr(memory, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "`units` must be an integer of at least 1. Received: units=0"),
        ({"units": D, "depth": 0}, "`depth`.*depth=0"),
        ({"units": D, "depth": 1.5}, "`depth`.*depth=1.5"),
        ({"units": D, "write_rule": "hebb"}, "'local', 'gradient'.*'hebb'"),
        ({"units": D, "step_size": -1}, "`step_size`.*-1"),
        ({"units": D, "write_rule": "gradient", "feedback": keras.layers.Dense(4)}, "`feedback`"),
        ({"units": D, "feedback": lambda values: values}, "`feedback` must be a Keras layer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.NeuralMemory(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": np.zeros((B, D))}, r"`keys` must have shape \[B, H, 4\].*\(3, 4\)"),
        ({"keys": np.zeros((B, H, 5))}, r"`keys`.*\(3, 2, 5\)"),
        ({"values": np.zeros((B, 1, D))}, "same shape"),
        ({"rate": 1.5}, r"`rate` must lie in \[0, 1\].*1.5"),
        ({"rate": -0.1}, "`rate`"),
        ({"rate": np.nan}, "`rate`"),
        ({"rate": np.zeros((B, 2))}, r"`rate`.*3 memory layers.*\(3, 2\)"),
        ({"keys": np.full((B, H, D), np.nan)}, "`keys` must be finite.*24 NaN"),
        ({"rate": np.zeros(2)}, r"`rate`.*B = 3.*\(2, 1\)"),
        ({"states": None}, r"`states` must be a list of 3 tensors.*states=None"),
        ({"states": [np.zeros((B, D * D))] * 2}, r"`states` must be 3 tensors of shape \[3, 16\]"),
        ({"states": [np.zeros((1, D * D))] * 3}, r"`states` must be 3.*\[3, 16\].*\(1, 16\)"),
        ({"states": [np.full((B, D * D), np.nan)] * 3}, "`states` must be finite"),
    ],
)
def test_bad_writes(change, message):
    memory = keras_mnm.NeuralMemory(D)
    arguments = {
        "keys": np.zeros((B, H, D)),
        "values": np.zeros((B, H, D)),
        "rate": 0.5,
        "states": memory.get_initial_state(B),
    }
    memory.write(**arguments)
    with pytest.raises(ValueError, match=message):
        memory.write(**{**arguments, **change})


def test_bad_calls_once_built():
    memory = keras_mnm.NeuralMemory(D)
    keys = np.zeros((B, H, D), "float32")
    states = memory.get_initial_state(B)
    memory(keys, states)
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        memory(keys[:, 0])
    with pytest.raises(ValueError, match=r"axis -1 .* have value 4.*shape \(3, 2, 3\)"):
        memory(keys[..., :3])
    for some in (states[:2], memory.get_initial_state(1)):
        with pytest.raises(ValueError, match=r"`states` must be 3 tensors of shape \[3, 16\]"):
            memory(keys, some)


def test_read_and_write_take_numbers():
    """A model made of them would keep φ_0 as it was then, and have no weights."""
    memory = keras_mnm.NeuralMemory(D)
    keys = keras.Input((H, D))
    states = [keras.Input((D * D,)) for _ in range(3)]
    numbers, empty = np.zeros((B, H, D)), memory.get_initial_state(B)
    for name, call in {
        "keys": lambda: memory.read(keys, states),
        "states": lambda: memory.read(numbers, states),
        "rate": lambda: memory.write(numbers, numbers, keras.Input((1,)), empty),
    }.items():
        with pytest.raises(ValueError, match=f"for `{name}` a symbolic input.*Call the layer"):
            call()


def test_read_within_a_layer_of_ones_own():
    """On TensorFlow the batch size of the keys is not known then, and that of the states may be."""

    class Reader(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.memory = keras_mnm.NeuralMemory(D)

        def build(self, input_shape):
            self.memory.build()

        def call(self, keys):
            size = B if keras.backend.backend() == "tensorflow" else keys.shape[0]
            return self.memory.read(keys, self.memory.get_initial_state(size))

    keras.utils.set_random_seed(0)
    layer, keys = Reader(), np.ones((B, H, D), "float32")
    inputs = keras.Input((H, D))
    model = keras.Model(inputs, layer(inputs))
    np.testing.assert_allclose(
        model.predict(keys, verbose=0), ops.convert_to_numpy(layer.memory(keys)), rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"`states` must be 3 tensors.*\(\)"):
        layer.memory.read(keys, [0.0, 0.0, 0.0])

    keras.config.set_dtype_policy("mixed_bfloat16")  # rounds the weights of layers within, too
    try:
        mixed = Reader()
        mixed(keys)
        mixed.memory.set_weights(layer.memory.get_weights())
        np.testing.assert_array_equal(ops.convert_to_numpy(mixed(keys)), layer(keys))
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_seed_generator_draws_each_matrix_anew():
    def orthogonal():
        return keras.initializers.Orthogonal(seed=keras.random.SeedGenerator(1))

    memory = make("local", 3, initializer=orthogonal())
    feedback = keras_mnm.BFPF(D, 3, kernel_initializer=orthogonal())
    feedback.build((None, D))
    plastic = keras_mnm.PlasticCell(D, recurrent_initializer=orthogonal())
    plastic.build((None, D))
    kernels = np.split(ops.convert_to_numpy(feedback.kernel), 3, axis=-1)
    fixed, learned = map(ops.convert_to_numpy, (plastic.recurrent_kernel, plastic.plasticity))
    for matrices in (memory.initial_memory, kernels, [fixed, learned]):
        matrices = [ops.convert_to_numpy(matrix) for matrix in matrices]
        for one, other in itertools.pairwise(matrices):
            assert np.abs(one - other).max() > 0.1


def test_a_memory_is_built_before_what_is_compiled():
    memory = keras_mnm.NeuralMemory(D)
    states = memory.get_initial_state(2)
    weights = memory.get_weights()
    assert [weight.shape for weight in weights[:3]] == [(D, D)] * 3
    memory.write(np.ones((2, 1, D)), np.ones((2, 1, D)), 1.0, states)
    for found, expected in zip(memory.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_rate_for_each_sample():
    memory, rates = make("local", B), np.array([0.0, 0.5, 1.0])  # as many layers as samples
    keys, values = np.random.default_rng(3).uniform(-1, 1, (2, B, H, D))
    states = memory.get_initial_state(B)
    found = memory.write(keys, values, rates, states)
    expected = memory.write(keys, values, np.tile(rates[:, None], B), states)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
