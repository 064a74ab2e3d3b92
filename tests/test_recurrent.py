"""What a Keras user tries with a recurrent layer, over layers, masks and flags.

The oracle is the reference in NumPy, one sample at a time, wherever the outputs are concerned.
"""

import concurrent.futures
import functools

import finite_differences
import keras
import numpy as np
import own_cell
import pytest
import reference
from keras import ops

import keras_mnm

B, T, FEATURES, UNITS, D = 3, 5, 2, 4, 3


def loop_over(cell, *sizes, dtype=None, **flags):
    return keras.layers.RNN(cell(*sizes, dtype=dtype), dtype=dtype, **flags)


KINDS = {
    "local": lambda **flags: keras_mnm.MNM(UNITS, D, **flags),
    "gradient": lambda **flags: keras_mnm.MNM(UNITS, D, 2, write_rule="gradient", **flags),
    "plain": lambda **flags: loop_over(keras_mnm.MNMCell, UNITS, D, **flags),
    "own local": lambda **flags: loop_over(own_cell.StoreCell, D, **flags),
    "own gradient": lambda **flags: loop_over(own_cell.StoreCell, D, "gradient", **flags),
}
OF_MNM = ("local", "gradient")
"""Those that are no `keras.layers.RNN` itself."""
kinds = pytest.mark.parametrize("kind", KINDS)
layer_classes = pytest.mark.parametrize(
    "layer_class", [keras_mnm.MNM, keras_mnm.SALU, keras_mnm.Plastic]
)

MASKS = {
    "none": None,
    "right": np.arange(T)[None] < [[5], [3], [1]],
    "left": np.arange(T)[None] >= [[0], [2], [4]],
    "holes": np.array([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool),
    "whole rows": np.array([[1] * T, [0] * T, [1] * T], bool),
}
FLAGS = [
    {},
    {"return_sequences": True},
    {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "go_backwards": True},
    {"return_sequences": True, "zero_output_for_mask": True},
    {"return_sequences": True, "unroll": True},
    {"return_state": True, "unroll": True, "go_backwards": True},
]


def inputs(batch=B, steps=T, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, steps, FEATURES)).astype("float32")


def build(kind, **flags):
    """A layer with biases that are not zero."""
    keras.utils.set_random_seed(1)
    layer = KINDS[kind](**flags)
    layer.build((None, None, FEATURES))
    rng = np.random.default_rng(2)
    for weight in layer.cell.trainable_variables:
        weight.assign(rng.uniform(-0.8, 0.8, weight.shape))
    return layer


def expected_outputs(layer, x, mask=None):
    """The outputs of all steps by the reference, `[B, T, units]`."""
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    if isinstance(layer.cell, own_cell.StoreCell):
        return np.stack([own_cell.expected(layer.cell, *row) for row in zip(x, mask)])
    options = {"heads": layer.cell.num_heads, "rule": layer.cell.write_rule}
    parameters = reference.cell_parameters(layer.cell)
    rows = [reference.run(parameters, *row, **options)[0] for row in zip(x, mask)]
    return np.stack(rows)


def close(found, expected, tolerance=2e-5):
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, rtol=tolerance, atol=tolerance
    )


@functools.lru_cache(maxsize=2 * len(KINDS))
def run_all_masks(kind, masked, **flags):
    """A layer, and what it returns for the inputs under all masks, as one batch, or without."""
    layer, masks = build(kind, **flags), [mask for mask in MASKS.values() if mask is not None]
    if not masked:
        return layer, layer(inputs())
    return layer, layer(np.tile(inputs(), (len(masks), 1, 1)), mask=np.concatenate(masks))


@kinds
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: " ".join(flags) or "default")
def test_flags_and_masks(kind, mask, flags):
    number, x, mask = list(MASKS).index(mask), inputs(), MASKS[mask]
    keras_fails = flags.get("go_backwards") and flags.get("unroll") and kind not in OF_MNM
    if keras.backend.backend() == "torch" and keras_fails and mask is not None:
        pytest.skip("Keras's own unrolled loop fails on torch with a mask read backwards")
    layer, result = run_all_masks(kind, mask is not None, **flags)
    if mask is not None:
        rows = slice((number - 1) * B, number * B)
        result = keras.tree.map_structure(lambda x: x[rows], result)
    flip = (lambda a: a[:, ::-1]) if flags.get("go_backwards") else (lambda a: a)
    whole = expected_outputs(layer, flip(x), None if mask is None else flip(mask))
    if mask is not None and flags.get("zero_output_for_mask"):
        whole = whole * mask[..., None]
    outputs, *states = result if flags.get("return_state") else [result]
    close(outputs, whole if flags.get("return_sequences") else whole[:, -1])
    if flags.get("return_state"):
        assert len(states) == len(layer.cell.state_size)
        close(states[0], whole[:, -1])


@layer_classes
@pytest.mark.parametrize("unroll", [False, True])
def test_in_a_list_of_masks_the_first_is_that_of_the_sequences(layer_class, unroll):
    layer, x, mask = layer_class(UNITS, unroll=unroll), inputs(), MASKS["whole rows"]
    expected = ops.convert_to_numpy(layer(x, mask=mask))
    close(layer(x, mask=[mask, None]), expected)


@layer_classes
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_zeros_at_masked_steps_are_those_of_the_fast_form(layer_class, backwards, sequences):
    flags = {"go_backwards": backwards, "zero_output_for_mask": True, "return_state": True}
    flags["return_sequences"] = sequences
    fast, unrolled = (layer_class(UNITS, **flags, unroll=unroll) for unroll in (False, True))
    for layer in (fast, unrolled):
        layer.build((None, T, FEATURES))
    unrolled.set_weights(fast.get_weights())
    for name, mask in MASKS.items():
        if mask is not None:
            found, expected = unrolled(inputs(), mask=mask), fast(inputs(), mask=mask)
            for one, other in zip(found, expected, strict=True):
                close(one, ops.convert_to_numpy(other))
            steps = mask[:, ::-1] if backwards else mask
            steps = steps if sequences else steps[:, -1]
            assert not ops.convert_to_numpy(found[0])[~steps].any(), name
    assert unrolled.zero_output_for_mask


def test_threads_share_a_layer():
    """Eager calls of the plain loop with zeros at masked steps."""
    layer, x, mask = keras_mnm.Plastic(UNITS, return_sequences=True), inputs(), MASKS["right"]
    layer.zero_output_for_mask = True
    layer.build(x.shape)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ops.convert_to_numpy(layer(x, mask=mask)), range(16)))
    for outputs in found:
        np.testing.assert_array_equal(outputs, found[0])
        assert not outputs[~mask].any()
        assert outputs[mask].all()


@layer_classes
def test_one_sample_of_unknown_length(layer_class):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("lengths are unknown on TensorFlow alone")
    import tensorflow as tf

    options = {"slots": 9} if layer_class is keras_mnm.SALU else {}
    layer = layer_class(UNITS, **options)
    model = keras.Sequential([keras.Input((None, FEATURES)), keras.layers.Masking(), layer])
    x = inputs(1)
    x[:, :2] = 0.0
    traced = tf.function(model, input_signature=[tf.TensorSpec((1, None, FEATURES))])
    close(traced(x), ops.convert_to_numpy(model(x)))


@layer_classes
@pytest.mark.parametrize("unroll", [False, True])
def test_nan_at_masked_steps_reaches_no_gradient(layer_class, unroll):
    layer, x, mask = layer_class(UNITS, unroll=unroll), inputs(), MASKS["holes"]
    layer.build(x.shape)
    variables = layer.trainable_variables

    def gradients(x):
        loss = lambda: ops.sum(layer(x, mask=mask)) + sum(layer.losses)
        return finite_differences.gradients(loss, variables)

    spoilt = np.where(mask[..., None], x, np.nan).astype("float32")
    for found, expected in zip(gradients(spoilt), gradients(x), strict=True):
        close(found, expected)


@kinds
@pytest.mark.parametrize("shape", [(D, T), (UNITS, 1), (1, 1), (2, 9)], ids=str)
def test_sizes_that_mislead(kind, shape):
    """A batch as large as the memory, single steps, single samples."""
    layer, x = build(kind, return_sequences=True), inputs(*shape)
    close(layer(x), expected_outputs(layer, x))


@kinds
def test_initial_state_goes_on_where_the_last_call_ended(kind):
    layer, x = build(kind, return_sequences=True, return_state=True), inputs(steps=6)
    first, *states = layer(x[:, :2])
    second = layer(x[:, 2:], initial_state=states)[0]
    close(ops.concatenate([first, second], axis=1), expected_outputs(layer, x))


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"unroll": True},
        {"recall_delay": 1},
        {"go_backwards": True},
        {"recall_delay": 1, "go_backwards": True},
    ],
    ids=str,
)
def test_masked_steps_at_first_repeat_the_output_given(flags, sequences):
    layer = build("local", return_sequences=sequences, return_state=True)
    again = build("local", return_sequences=sequences, return_state=True, **flags)
    x, mask = inputs(), np.array([[0, 0, 1, 1, 1], [0] * T, [0, 1, 0, 0, 1]], bool)
    _, *states = layer(inputs(seed=1))
    expected, *_ = layer(x, initial_state=states, mask=mask)
    if "recall_delay" in flags:
        states += again.cell.get_initial_state(B)[len(states) :]
    if "go_backwards" in flags:
        x, mask = x[:, ::-1], mask[:, ::-1]
    found, *_ = again(x, initial_state=states, mask=mask)
    close(found, ops.convert_to_numpy(expected))
    given = ops.convert_to_numpy(states[0])
    close(found[1], np.broadcast_to(given[1], found[1].shape))


@kinds
def test_one_sample_is_reset_in_the_middle(kind):
    """Zeros are the empty memory, φ_0, for the states hold what was written."""
    layer, x = build(kind, return_sequences=True, return_state=True), inputs(steps=6)
    _, *states = layer(x[:, :2])
    keep = ops.convert_to_tensor([[1.0], [0.0], [1.0]])
    outputs = layer(x[:, 2:], initial_state=[state * keep for state in states])[0]
    expected = expected_outputs(layer, x)[:, 2:]
    expected[1] = expected_outputs(layer, x[1:2, 2:])[0]
    close(outputs, expected)


@kinds
def test_stateful_and_reset(kind):
    layer, x = build(kind, return_sequences=True), inputs(steps=6)
    stateful = KINDS[kind](return_sequences=True, stateful=True)
    stateful(keras.Input(batch_shape=(B, 2, FEATURES)))
    for variable, value in zip(stateful.cell.weights, layer.cell.weights):
        variable.assign(value)
    expected = expected_outputs(layer, x)
    for _ in range(2):
        chunks = [ops.convert_to_numpy(stateful(x[:, i : i + 2])) for i in (0, 2, 4)]
        close(np.concatenate(chunks, axis=1), expected)
        stateful.reset_state()


@kinds
def test_bidirectional(kind):
    layer = keras.layers.Bidirectional(build(kind, return_sequences=True), merge_mode="sum")
    x, mask = inputs(), MASKS["right"]
    found = layer(x, mask=mask)
    forward, backward = layer.forward_layer, layer.backward_layer
    flipped = expected_outputs(backward, x[:, ::-1], mask[:, ::-1])[:, ::-1]
    both = expected_outputs(forward, x, mask) + flipped
    close(found, both * mask[..., None])  # Keras sets zero_output_for_mask


@kinds
def test_time_distributed(kind):
    layer = keras.layers.TimeDistributed(build(kind))
    x = np.stack([inputs(seed=0), inputs(seed=1)], axis=1)
    expected = [expected_outputs(layer.layer, x[:, i])[:, -1] for i in range(2)]
    close(layer(x), np.stack(expected, axis=1))
    if isinstance(layer.layer, keras_mnm.MNM):
        assert len(layer.losses) == 2  # docs/from-lstm.md: the objective once for each slice


def test_stacked_cells():
    cells = [keras_mnm.MNMCell(UNITS, D), keras.layers.GRUCell(3), keras_mnm.MNMCell(2, D)]
    stacked = keras.layers.RNN(cells, return_sequences=True)
    x, mask = inputs(), MASKS["holes"]
    found = stacked(x, mask=mask)
    one_by_one = x
    for cell in cells:
        one_by_one = keras.layers.RNN(cell, return_sequences=True)(one_by_one, mask=mask)
    close(found, ops.convert_to_numpy(one_by_one))


@kinds
def test_float64_is_kept(kind):
    layer = build(kind, return_sequences=True, dtype="float64")
    x = inputs().astype("float64")
    close(layer(x), expected_outputs(layer, x), tolerance=1e-12)


def test_float64_becomes_float32_where_keras_rounds_it(monkeypatch):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow computes in float64")
    from keras.src.backend.common import dtypes

    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float32")  # undoes conftest.py
    for layer_class in (keras_mnm.MNM, keras_mnm.SALU, keras_mnm.Plastic):
        layer = layer_class(UNITS, dtype="float64")
        assert keras.backend.standardize_dtype(layer(inputs()).dtype) == "float32"
        assert layer.cell.compute_dtype == "float32"


NOT_COMPILED = {"tensorflow": ["local", "plain"], "jax": ["own local"], "torch": KINDS}


@kinds
@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_model_trains_with_masks(kind, jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("on torch the guides leave jit_compile out")
    if not jit_compile and kind not in NOT_COMPILED[keras.backend.backend()]:
        pytest.skip("takes long, and others show it")
    batch = 4 if jit_compile else 5  # the last batch is a partial one
    x, mask = inputs(batch), MASKS["holes"][[0, 1, 2, 0, 1][:batch]]
    rows, present = keras.Input((T, FEATURES)), keras.Input((T,), dtype="bool")
    layer = build(kind)
    model = keras.Model([rows, present], keras.layers.Dense(1)(layer(rows, mask=present)))
    model.compile(keras.optimizers.Adam(0.02, clipnorm=1.0), "mse", jit_compile=jit_compile)
    data = [x, mask], np.ones((batch, 1), "float32")
    losses = model.fit(*data, batch_size=2, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    if jit_compile and keras.backend.backend() == "tensorflow" and kind != "local":
        return  # seconds more to compile; one kind shows it
    hidden = expected_outputs(layer, x, mask)[:, -1]
    kernel, bias = model.layers[-1].get_weights()
    close(model.predict(data[0], batch_size=2, verbose=0), hidden @ kernel + bias, 1e-4)


@kinds
def test_clone_and_files(kind, tmp_path):
    model = keras.Sequential([keras.Input((T, FEATURES)), build(kind)])
    x = inputs()
    expected = ops.convert_to_numpy(model(x))
    clone = keras.models.clone_model(model)
    assert clone.count_params() == model.count_params()
    assert not np.allclose(ops.convert_to_numpy(clone(x)), expected)
    clone.set_weights(model.get_weights())
    close(clone(x), expected, 1e-6)
    model.save_weights(tmp_path / "model.weights.h5")
    other = keras.models.clone_model(model)
    other.load_weights(tmp_path / "model.weights.h5")
    close(other(x), expected, 1e-6)
    model.save(tmp_path / "model.keras")
    close(keras.saving.load_model(tmp_path / "model.keras")(x), expected, 1e-6)


@pytest.mark.parametrize("layer_class", [keras_mnm.MNM, keras_mnm.SALU])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_in_a_graph_are_those_of_the_plain_loop(layer_class, jit_compile):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("eager calls run the same loops")
    import tensorflow as tf

    layer, plain = layer_class(UNITS), layer_class(UNITS, unroll=True)
    for each in (layer, plain):
        each.build((B, T, FEATURES))
    plain.set_weights(layer.get_weights())

    def gradients(each):
        with tf.GradientTape() as tape:
            outputs = each(inputs(), mask=MASKS["holes"])
            loss = ops.sum(ops.square(outputs)) + sum(each.losses)
        return tape.gradient(loss, [weight.value for weight in each.trainable_variables])

    found = tf.function(lambda: gradients(layer), jit_compile=jit_compile)()
    for one, other in zip(found, gradients(plain), strict=True):
        close(one, ops.convert_to_numpy(other))
