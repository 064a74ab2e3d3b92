"""The look-up table baseline against the equations in plain loops, and its fast form."""

import finite_differences
import keras
import numpy as np
import pytest
import reference
from keras import ops

import keras_mnm

B, T, FEATURES, UNITS, D = 3, 5, 2, 4, 3
OPTIONS = {"return_sequences": True, "return_state": True, "dtype": "float64"}


def randomized(layer, seed=0):
    """Weights of everyday size everywhere, biases included."""
    layer.build((None, T, FEATURES))
    rng = np.random.default_rng(seed)
    for weight in layer.trainable_variables:
        weight.assign(rng.uniform(-1, 1, weight.shape))
    return layer


def fast_and_plain(heads, **options):
    """The same weights as a `SALU` and as Keras's plain loop over its cell."""
    flags = {k: options.pop(k) for k in ("go_backwards", "zero_output_for_mask") if k in options}
    fast = randomized(keras_mnm.SALU(UNITS, D, heads, **{**OPTIONS, **options, **flags}))
    assert fast._can_fuse(T)
    return fast, keras.layers.RNN(fast.cell, **OPTIONS, **flags)


def data(seed=1):
    """Sequences, and a mask with holes, with a row's end cut off, and with a step nobody has."""
    x = np.random.default_rng(seed).standard_normal((B, T, FEATURES))
    mask = np.ones((B, T), bool)
    mask[1, 1:3] = False
    mask[2, 3:] = False
    mask[:, 2] = False
    return x, mask


def compare(one, other, tolerance=1e-10):
    one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_outputs_match_the_equations(heads, masked):
    x, mask = data()
    mask = mask if masked else np.ones((B, T), bool)
    for layer in fast_and_plain(heads):
        outputs = layer(x, mask=mask)[0]
        parameters = reference.cell_parameters(layer.cell)
        for sample in range(B):
            expected = reference.run_salu(parameters, x[sample], mask[sample], heads=heads)
            compare(outputs[sample], expected)


def test_gradients_match_finite_differences():
    layer, _ = fast_and_plain(heads=2)
    values, mask = data()
    x = keras.Variable(values, dtype="float64", name="x")

    def loss():
        outputs, *states = layer(x.value, mask=mask)
        return sum(ops.sum(ops.square(y)) for y in [outputs, *states])

    variables = [x, *layer.trainable_variables]
    finite_differences.check_gradients(loss, variables, np.random.default_rng(2), 1e-6)


def started(layer, x, coefficients):
    """A scalar that depends on all outputs and final states of two calls in a row."""
    first, *states = layer(x[:, :3])
    second, *states = layer(x[:, 3:], initial_state=states)
    return sum(
        ops.sum(y * ops.convert_to_tensor(np.resize(coefficient, y.shape), "float64"))
        for y, coefficient in zip([first, second, *states], coefficients, strict=True)
    )


def test_gradients_through_chunks_and_a_full_table():
    """With 4 slots the last step finds no room."""
    fast, plain = fast_and_plain(heads=2, slots=4)
    x = keras.Variable(data()[0], dtype="float64", name="x")
    variables = [x, *fast.trainable_variables]
    coefficients = np.random.default_rng(3).standard_normal((9, 31))

    def gradients(layer):
        return finite_differences.gradients(
            lambda: started(layer, x.value, coefficients), variables
        )

    found, expected = gradients(fast), gradients(plain)
    for one, other in zip(found, expected, strict=True):
        compare(one, other, 1e-9)


@pytest.mark.parametrize("flag", ["go_backwards", "zero_output_for_mask"])
def test_fast_equals_plain(flag):
    fast, plain = fast_and_plain(heads=3, **{flag: True})
    x, mask = data()
    outputs = fast(x, mask=mask)
    for one, other in zip(outputs, plain(x, mask=mask), strict=True):
        compare(one, other)


def test_any_rnn_cell_may_control():
    fast, plain = fast_and_plain(1, controller=keras.layers.GRUCell(6, dtype="float64"))
    x = data()[0]
    compare(fast(x)[0], plain(x)[0])


def test_masked_equals_unpadded():
    layer = randomized(keras_mnm.SALU(UNITS, D, slots=8, dtype="float64"))
    x = data()[0]
    rubbish = np.full((B, 3, FEATURES), np.nan)
    padded = np.concatenate([rubbish, x], axis=1)
    mask = np.arange(T + 3)[None] >= np.full((B, 1), 3)
    compare(layer(padded, mask=mask), layer(x))


def test_chunked_equals_whole_until_the_table_is_full():
    whole = randomized(keras_mnm.SALU(UNITS, D, return_sequences=True, dtype="float64"))
    stateful = keras_mnm.SALU(
        UNITS, D, slots=T, return_sequences=True, dtype="float64", stateful=True
    )
    stateful.build((B, None, FEATURES))
    for variable, value in zip(stateful.cell.weights, whole.cell.weights, strict=True):
        variable.assign(value)
    x = data()[0]
    for _ in range(2):
        chunks = [stateful(x[:, :2]), stateful(x[:, 2:])]
        compare(ops.concatenate(chunks, axis=1), whole(x))
        full = [ops.convert_to_numpy(state) for state in stateful.states[-3:]]
        stateful(x[:, :1])
        for state, before in zip(stateful.states[-3:], full, strict=True):
            compare(state, before)
        stateful.reset_state()


def test_a_model_trains_compiled_and_is_loaded_as_it_was(tmp_path):
    inputs = keras.Input((T, FEATURES))
    hidden = keras_mnm.SALU(8, num_heads=2, return_sequences=True)(inputs)
    hidden = keras.layers.RNN(keras_mnm.SALUCell(8, slots=T))(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mse", jit_compile=keras.backend.backend() != "torch")
    x, y = data()[0].astype("float32"), np.ones((B, 1), "float32")
    losses = [model.train_on_batch(x, y) for _ in range(5)]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    compare(loaded(x), model(x), 1e-6)


def test_configs_survive_with_every_option_set():
    layer = keras_mnm.SALU(
        8,
        6,
        2,
        slots=9,
        controller=keras.layers.GRUCell(5),
        tie_initial_keys=False,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(0.1),
        kernel_constraint=keras.constraints.MaxNorm(3.0),
        return_sequences=True,
        stateful=True,
        name="s",
    )
    config = layer.get_config()
    assert config["tie_initial_keys"] is False
    copy = keras_mnm.SALU.from_config(config)
    assert copy.get_config() == config
    assert (copy.num_heads, copy.slots, copy.memory_units, copy.stateful) == (2, 9, 6, True)
    cell = keras_mnm.SALUCell.from_config(layer.cell.get_config())
    assert cell.get_config() == layer.cell.get_config()
    assert keras_mnm.SALU(8).get_config()["slots"] is None


def test_keys_begin_tied():
    kernel = ops.convert_to_numpy(keras_mnm.SALUCell(4, 3, slots=1)._interaction_kernel((4, 9)))
    np.testing.assert_array_equal(kernel[:, :3], kernel[:, 3:6])


@pytest.mark.parametrize("sequences", [False, True])
def test_symbolic_shapes_equal_eager_shapes(sequences):
    layer = keras_mnm.SALU(8, num_heads=2, return_sequences=sequences, return_state=True)
    symbolic = layer(keras.Input((T, FEATURES), batch_size=B))
    eager = layer(np.zeros((B, T, FEATURES), "float32"))
    assert [tuple(s.shape) for s in symbolic] == [tuple(e.shape) for e in eager]
    for one in (layer, keras_mnm.SALU.from_config(layer.get_config())):
        shapes = one.compute_output_shape((B, T, FEATURES))
        assert list(shapes) == [tuple(e.shape) for e in eager]


def test_half_precision_becomes_float32():
    layer = keras_mnm.SALU(8, return_sequences=True, dtype="mixed_bfloat16")
    outputs = layer(ops.cast(data()[0], "bfloat16"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    single = keras_mnm.SALU(8, return_sequences=True)
    single.build(data()[0].shape)
    single.set_weights(layer.get_weights())
    expected = ops.convert_to_numpy(single(ops.cast(data()[0], "float32")))
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "`units`.*0"),
        ({"units": 4, "num_heads": 0}, "`num_heads`.*0"),
        ({"units": 4, "slots": 0}, "`slots`.*0"),
        ({"units": 4, "stateful": True}, "stateful SALU needs `slots`"),
        ({"units": 4, "controller": keras.layers.LSTMCell(4, dropout=0.1)}, "must be pure.*0.1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.SALU(**arguments)


def test_bad_inputs():
    with pytest.raises(ValueError, match=r"SALU takes.*\[B, T, features\].*\(3, 5\)"):
        keras_mnm.SALU(4)(np.zeros((3, 5), "float32"))
    with pytest.raises(ValueError, match=r"slots=20.*\(None, None, 2\)"):
        keras_mnm.SALU(4)(keras.Input((None, 2)))
    with pytest.raises(ValueError, match=r"5 steps.*slots=3.*slots=5 or more"):
        keras_mnm.SALU(4, slots=3)(np.zeros((B, T, FEATURES), "float32"))
    with pytest.raises(ValueError, match="7 states.*Received 2 states"):
        keras_mnm.SALUCell(4, slots=3).unpack_state([0, 0])


def test_going_on_takes_slots():
    x = np.zeros((2, 3, 5), "float32")
    layer = keras_mnm.SALU(4, return_state=True)
    _, *states = layer(x)
    with pytest.raises(ValueError, match="`slots`.*slots=None; pass slots=6 for two"):
        layer(x, initial_state=states)
