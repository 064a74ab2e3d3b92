import functools
import re
import subprocess
import sys

import finite_differences
import keras
import numpy as np
import pytest
import reference
from keras import ops

import keras_mnm

B, T, FEATURES, UNITS, D = 3, 5, 2, 4, 3


def randomized(layer, seed=0):
    """Weights of everyday size everywhere, biases included; φ_0 as it was drawn."""
    rng = np.random.default_rng(seed)
    for weight in layer.trainable_variables:
        weight.assign(rng.uniform(-0.8, 0.8, weight.shape))
    return layer


def make_plain(cell_options, dtype="float64", **options):
    """A plain loop over a cell, all states returned."""
    cell = keras_mnm.MNMCell(UNITS, D, dtype=dtype, **cell_options)
    loop = {"return_sequences": True, "return_state": True, "dtype": dtype, **options}
    layer = keras.layers.RNN(cell, **loop)
    layer.build((None, None, FEATURES))
    return randomized(layer)


CELLS = [
    {"write_rule": "local", "memory_depth": 2},
    {"write_rule": "local", "num_heads": 2, "rate_per_layer": True},
    {"write_rule": "local", "recall_delay": 2, "recall_decay": 0.5, "num_heads": 2},
    {"write_rule": "gradient", "memory_depth": 1, "num_heads": 2},
    {"write_rule": "gradient", "rate_per_layer": True, "recall_delay": 3},
]


@pytest.mark.parametrize("cell_options", CELLS)
def test_outputs_and_meta_loss_match_the_equations(cell_options, precision):
    dtype, tolerance = precision
    layer = make_plain(cell_options, dtype)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((B, T, FEATURES))
    mask = np.ones((B, T), bool)
    mask[1, 1:3] = False
    mask[2, 3:] = False
    outputs, *states = layer(x.astype(dtype), mask=mask)
    meta = ops.convert_to_numpy(layer.cell.unpack_state(states).meta)

    parameters = reference.cell_parameters(layer.cell)
    for sample in range(B):
        expected, meta_loss = reference.run(
            parameters,
            x[sample],
            mask[sample],
            heads=cell_options.get("num_heads", 1),
            rule=cell_options["write_rule"],
            recall_delay=cell_options.get("recall_delay", 0),
            recall_decay=cell_options.get("recall_decay", 1.0),
        )
        np.testing.assert_allclose(ops.convert_to_numpy(outputs)[sample], expected, atol=tolerance)
        total, steps = meta[sample]
        np.testing.assert_allclose(total / steps, meta_loss, atol=tolerance)
        assert steps == mask[sample].sum()


@pytest.mark.parametrize("cell_options", CELLS)
def test_gradients_match_finite_differences(cell_options):
    layer = make_plain({**cell_options, "train_initial_memory": True})
    rng = np.random.default_rng(2)
    x = keras.Variable(rng.standard_normal((2, 4, FEATURES)), dtype="float64", name="x")
    mask = np.array([[True] * 4, [True, False, True, True]])

    def loss():
        outputs, *states = layer(x.value, mask=mask)
        meta = layer.cell.unpack_state(states).meta
        return ops.sum(ops.square(outputs)) + ops.sum(meta[:, 0])

    finite_differences.check_gradients(loss, [x, *layer.trainable_variables], rng, 1e-6)


def test_the_layer_adds_the_meta_objective():
    keras.config.set_floatx("float64")  # the type of losses
    layer = keras_mnm.MNM(UNITS, D, meta_loss_weight=0.25, dtype="float64")
    x = np.random.default_rng(3).standard_normal((B, T, FEATURES))
    layer(x)
    parameters = reference.cell_parameters(layer.cell)
    expected = np.mean([reference.run(parameters, row, heads=1, rule="local")[1] for row in x])
    (loss,) = layer.losses
    np.testing.assert_allclose(ops.convert_to_numpy(loss), 0.25 * expected, rtol=1e-10)


def test_masked_equals_unpadded():
    layer = keras_mnm.MNM(UNITS, D, return_state=True, dtype="float64")
    rng = np.random.default_rng(4)
    x = rng.standard_normal((B, T, FEATURES))
    padded = np.concatenate([x, rng.standard_normal((B, 3, FEATURES))], axis=1)
    mask = np.arange(T + 3)[None] < np.full((B, 1), T)
    short = layer(x)
    loss = ops.convert_to_numpy(layer.losses[0])
    for a, b in zip(short, layer(padded, mask=mask), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-12)
    np.testing.assert_allclose(loss, ops.convert_to_numpy(layer.losses[0]))


def test_chunked_equals_whole_and_reset_goes_back_to_the_initial_memory():
    options = {"return_sequences": True, "dtype": "float64"}
    whole = keras_mnm.MNM(UNITS, D, **options)
    x = np.random.default_rng(5).standard_normal((B, 6, FEATURES))
    expected = ops.convert_to_numpy(whole(x))
    stateful = keras_mnm.MNM(UNITS, D, stateful=True, **options)
    stateful.build((B, None, FEATURES))
    for variable, value in zip(stateful.cell.weights, whole.cell.weights, strict=True):
        variable.assign(value)
    for _ in range(2):
        found = [ops.convert_to_numpy(stateful(x[:, i : i + 2])) for i in (0, 2, 4)]
        np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-12)
        stateful.reset_state()


@pytest.mark.parametrize("fused", [False, True])
def test_a_stateful_model_is_loaded_with_its_own_memory(tmp_path, fused):
    inputs = keras.Input(batch_shape=(B, 3, FEATURES))
    cell = keras_mnm.MNMCell(UNITS)
    layer = keras_mnm.MNM(UNITS, stateful=True) if fused else keras.layers.RNN(cell, stateful=True)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(5).standard_normal((B, 3, FEATURES)).astype("float32")
    expected = ops.convert_to_numpy(model(x))
    assert not np.allclose(ops.convert_to_numpy(model(x)), expected)
    layer.reset_state()
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)), expected, atol=1e-6)


def test_nan_at_masked_steps_reaches_nothing():
    layer = keras_mnm.MNM(UNITS, D, return_sequences=True)
    x = np.random.default_rng(5).standard_normal((B, T, FEATURES)).astype("float32")
    mask = np.ones((B, T), bool)
    mask[1, 2] = False
    expected = ops.convert_to_numpy(layer(x, mask=mask))
    loss = ops.convert_to_numpy(layer.losses[0])
    x[1, 2] = np.nan
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x, mask=mask)), expected)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.losses[0]), loss)


def test_fit_shows_the_meta_loss(tmp_path):
    inputs = keras.Input((T, FEATURES))
    model = keras_mnm.Model(inputs, keras.layers.Dense(1)(keras_mnm.MNM(8)(inputs)))
    model.compile("adam", "mse")
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((10, T, FEATURES)), rng.standard_normal((10, 1))
    log = tmp_path / "log.csv"
    history = model.fit(
        x,
        y,
        batch_size=4,  # the last batch has 2
        epochs=3,
        verbose=0,
        validation_data=(x, y),
        callbacks=[keras.callbacks.CSVLogger(log)],
    ).history
    assert {"loss", "meta_loss", "val_loss", "val_meta_loss"} <= set(history)
    assert "meta_loss" in log.read_text().splitlines()[0]
    logs = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    squared = np.mean((model.predict(x, verbose=0) - y) ** 2)
    np.testing.assert_allclose(logs["loss"] - logs["meta_loss"], squared, rtol=1e-4)
    assert abs(logs["meta_loss"] - history["val_meta_loss"][-1]) < 0.1 * logs["meta_loss"]
    assert history["loss"][-1] < history["loss"][0]


OPTIONS = {
    "num_heads": 2,
    "memory_depth": 2,
    "write_rule": "gradient",
    "rate_per_layer": True,
    "recall_delay": 1,
    "recall_decay": 0.9,
    "step_size": 0.3,
    "memory_activation": "sigmoid",
    "memory_output_activation": "tanh",
    "memory_initializer": keras.initializers.RandomNormal(0.1),
    "train_initial_memory": True,
    "tie_initial_keys": False,
    "kernel_initializer": "he_normal",
    "kernel_regularizer": keras.regularizers.L2(0.1),
    "kernel_constraint": keras.constraints.MaxNorm(3.0),
}


def test_configs_survive_with_every_option_set():
    options = {**OPTIONS, "controller": keras.layers.GRUCell(5)}
    layer = keras_mnm.MNM(
        8, 6, **options, meta_loss_weight=0.5, return_sequences=True, stateful=True, name="m"
    )
    config = layer.get_config()
    plain = {name: x for name, x in OPTIONS.items() if isinstance(x, (bool, int, float))}
    assert plain.items() <= config.items()
    copy = keras_mnm.MNM.from_config(config)
    assert copy.get_config() == config
    assert (copy.num_heads, copy.meta_loss_weight, copy.stateful) == (2, 0.5, True)
    assert copy.step_size == copy.cell.memory.step_size == 0.3
    assert keras_mnm.MetaLoss.from_config(keras_mnm.MetaLoss(0.25).get_config()).weight == 0.25
    cell = keras_mnm.MNMCell.from_config(layer.cell.get_config())
    assert cell.get_config() == layer.cell.get_config()
    local = keras_mnm.MNM(8, feedback=keras_mnm.BFPF(8, 3, "tanh"))
    assert keras_mnm.MNM.from_config(local.get_config()).get_config() == local.get_config()


NEW_PROCESS = """
import sys, numpy, keras, keras_mnm
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


def test_a_users_model_trains_and_loads_in_a_new_process(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("test_deployment.py loads what the other backends save, in new processes")
    inputs = keras.Input((T, FEATURES))
    x = keras_mnm.MNM(16, return_sequences=True)(inputs)
    x = keras.layers.RNN(keras_mnm.MNMCell(16))(x)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(7)
    x = rng.standard_normal((8, T, FEATURES)).astype("float32")
    model.fit(x, rng.integers(0, 2, 8), verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", NEW_PROCESS, *files], check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (keras_mnm.MNMCell, ["interaction", "rate", "output_projection"]),
        (functools.partial(keras_mnm.SALUCell, slots=1), ["interaction", "output_projection"]),
    ],
)
def test_kernels_are_regularized_and_constrained(make, parts):
    regularizer = keras.regularizers.L2(0.1)
    cell = make(UNITS, D, kernel_regularizer=regularizer, kernel_constraint="non_neg")
    cell.build((None, FEATURES))
    kernels = [getattr(cell, part).kernel for part in parts]
    assert all(kernel.constraint is not None for kernel in kernels)
    expected = [0.1 * np.sum(np.square(ops.convert_to_numpy(kernel))) for kernel in kernels]
    losses = [float(ops.convert_to_numpy(loss)) for loss in cell.losses]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "cell", [keras_mnm.MNMCell(UNITS, D, 2), keras_mnm.SALUCell(UNITS, D, 2, slots=1)]
)
def test_keys_of_several_heads_begin_tied(cell):
    cell.build((None, FEATURES))
    kernel = ops.convert_to_numpy(cell.interaction.kernel)
    np.testing.assert_array_equal(kernel[:, : 2 * D], kernel[:, 2 * D : 4 * D])
    assert not np.allclose(kernel[:, :D], kernel[:, D : 2 * D])


@pytest.mark.parametrize("options", [{}, {"unroll": True}, {"recall_delay": 1}], ids=str)
def test_the_meta_objective_is_of_this_call_alone(options):
    layer = keras_mnm.MNM(UNITS, D, stateful=True, **options)
    x = np.random.default_rng(0).standard_normal((B, T, FEATURES)).astype("float32")
    for _ in range(2):
        layer(x)
        meta = ops.convert_to_numpy(layer.cell.unpack_state(layer.states).meta)
        assert (meta[:, 1] == T).all()


def test_the_meta_loss_is_shown_without_its_weight():
    inputs = keras.Input((T, FEATURES))
    model = keras_mnm.Model(inputs, keras_mnm.MNM(UNITS, D, meta_loss_weight=0.25)(inputs))
    model.compile("sgd", "mse")
    x, y = np.ones((B, T, FEATURES), "float32"), np.zeros((B, UNITS), "float32")
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    squared = np.mean(model.predict(x, verbose=0) ** 2)
    assert logs["loss"] - squared == pytest.approx(0.25 * logs["meta_loss"], rel=1e-4)


def test_an_infinite_loss_is_reported_and_not_learned():
    model = keras.Sequential([keras.Input((T, FEATURES)), keras_mnm.MNM(UNITS, D)])
    model.compile("sgd", "mse")
    x, y = np.ones((3, T, FEATURES), "float32"), np.zeros((3, UNITS), "float32")
    y[1] = np.inf
    before = model.get_weights()
    with pytest.raises(ValueError, match="became inf at batch 2"):
        model.fit(x, y, batch_size=1, verbose=0, shuffle=False, callbacks=[keras_mnm.StopOnNaN()])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_keys_begin_tied_and_are_trained_apart():
    x = np.random.default_rng(9).standard_normal((B, T, FEATURES))
    layer, untied = keras_mnm.MNM(UNITS, D), keras_mnm.MNM(UNITS, D, tie_initial_keys=False)
    for one in (layer, untied):
        one(x)
    kernel = ops.convert_to_numpy(layer.cell.interaction.kernel)
    np.testing.assert_array_equal(kernel[:, :D], kernel[:, D : 2 * D])
    assert not np.allclose(kernel[:, D : 2 * D], kernel[:, 2 * D : 3 * D])
    kernel = ops.convert_to_numpy(untied.cell.interaction.kernel)
    assert not np.allclose(kernel[:, :D], kernel[:, D : 2 * D])


def test_symbolic_shapes_equal_eager_shapes():
    x = np.zeros((B, T, FEATURES), "float32")
    for sequences in (False, True):
        layer = keras_mnm.MNM(8, num_heads=2, return_sequences=sequences, return_state=True)
        symbolic = layer(keras.Input((T, FEATURES), batch_size=B))
        eager = layer(x)
        assert [tuple(s.shape) for s in symbolic] == [tuple(e.shape) for e in eager]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("fused", [True, False])
def test_memory_stays_float32_in_mixed_precision(policy, fused):
    """300 steps: in bfloat16 a count of steps would stay at 256, and writes would be lost."""
    steps = 300
    x = np.random.default_rng(8).standard_normal((B, steps, FEATURES)).astype("float32")
    options = {"return_sequences": True, "return_state": True, "unroll": False}
    if not fused:
        controller = keras.layers.LSTMCell(8, dtype=policy)
        options["controller"] = controller if policy == "mixed_float16" else None
        options["recall_delay"] = 1
    mixed = keras_mnm.MNM(8, dtype=policy, **options)
    inputs = keras.Input(x.shape[1:], dtype=policy.removeprefix("mixed_"))
    outputs, *states = keras.Model(inputs, mixed(inputs)).predict(x, verbose=0)
    assert mixed._can_fuse(x.shape[1]) == fused
    state = mixed.cell.unpack_state(states)
    assert {keras.backend.standardize_dtype(s.dtype) for s in states} == {"float32"}
    np.testing.assert_array_equal(ops.convert_to_numpy(state.meta)[:, 1], steps)

    keras.utils.set_random_seed(0)
    single = keras_mnm.MNM(8, return_sequences=True)
    single.build(x.shape)
    single.set_weights(mixed.get_weights())
    expected = ops.convert_to_numpy(single(x))
    # Inputs, and the controller where it is of half precision, are rounded to 8 bits or 11.
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=0.03)


def test_a_batch_with_nan_is_reported_and_not_learned():
    inputs = keras.Input((T, FEATURES))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras_mnm.MNM(8)(inputs)))
    model.compile("adam", "mse")
    x, y = np.ones((8, T, FEATURES), "float32"), np.ones((8, 1), "float32")
    model.fit(x, y, verbose=0, callbacks=[keras_mnm.StopOnNaN()])
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    x[5, 2] = np.nan
    with pytest.raises(ValueError, match=r"loss became nan at batch 2 of epoch 1"):
        model.fit(x, y, 4, verbose=0, shuffle=False, callbacks=[keras_mnm.StopOnNaN()])
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new))
    x[5, 2] = 1.0
    assert np.isfinite(model.fit(x, y, 4, verbose=0).history["loss"]).all()  # the optimizer, too


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": -1}, "`units`.*-1"),
        ({"units": 4, "memory_units": 0}, "`memory_units`.*0"),
        ({"units": 4, "num_heads": 0}, "`num_heads`.*0"),
        ({"units": 4, "memory_depth": 0}, "0"),
        ({"units": 4, "write_rule": "delta"}, "'local', 'gradient'.*'delta'"),
        ({"units": 4, "recall_delay": -1}, "`recall_delay`.*at least 0.*-1"),
        ({"units": 4, "recall_decay": 2.0}, "`recall_decay`.*2.0"),
        (
            {"units": 4, "controller": keras.layers.Dense(4)},
            "`controller` must be a Keras RNN cell",
        ),
        ({"units": 4, "controller": keras.layers.LSTM(4)}, "`controller` must be a Keras RNN cell"),
        ({"units": 4, "controller": keras.layers.LSTMCell(4, dropout=0.1)}, "must be pure.*0.1"),
        (
            {
                "units": 4,
                "controller": keras.layers.StackedRNNCells(
                    [keras.layers.GRUCell(4, recurrent_dropout=0.2), keras.layers.LSTMCell(4)]
                ),
            },
            "must be pure.*0.2",
        ),
        ({"units": 4, "meta_loss_weight": -1.0}, "`meta_loss_weight`.*-1.0"),
        ({"units": 4, "step_size": float("inf")}, "`step_size`.*inf"),
        ({"units": 4, "rate_per_layer": "no"}, "`rate_per_layer`.*'no'"),
        ({"units": 4, "tie_initial_keys": None}, "`tie_initial_keys`.*None"),
        ({"units": 4, "train_initial_memory": 2}, "`train_initial_memory`.*2"),
        ({"units": 4, "controller": keras.layers.LSTMCell}, "must be a Keras RNN cell"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_mnm.MNM(**arguments)


@pytest.mark.parametrize("features", [FEATURES, 20])
@pytest.mark.parametrize("layer", [keras_mnm.MNM, keras_mnm.SALU])
def test_a_controller_that_is_built_for_other_inputs(layer, features):
    controller = keras.layers.LSTMCell(4)
    controller.build((None, features))
    with pytest.raises(ValueError, match=rf"{FEATURES} \+ 3 features. Received .* for {features}"):
        layer(4, 3, controller=controller)(np.ones((2, T, FEATURES), "float32"))
    controller = keras.layers.LSTMCell(4)
    controller.build((None, FEATURES + 3))
    layer(4, 3, controller=controller)(np.ones((2, T, FEATURES), "float32"))


@pytest.mark.parametrize("cell", [keras_mnm.MNMCell, keras_mnm.PlasticCell])
@pytest.mark.parametrize("shape", [(None, None), (None, T, FEATURES)])
def test_a_cell_takes_one_step_of_known_features(cell, shape):
    with pytest.raises(ValueError, match=re.escape(f"Received shape {shape}")):
        cell(4).build(shape)


def test_loops_in_float32_under_a_mixed_policy():
    x = np.random.default_rng(0).standard_normal((2, T, FEATURES)).astype("float32")
    results = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(policy)
        try:
            cells = [keras_mnm.MNMCell(UNITS, D), keras_mnm.MNMCell(UNITS, D)]
            cell = keras.layers.StackedRNNCells(cells, dtype="float32")
            found = keras.layers.RNN(cell, return_state=True, dtype="float32")(x)
        finally:
            keras.config.set_dtype_policy("float32")
        results.append([ops.convert_to_numpy(y) for y in keras.tree.flatten(found)])
    for one, other in zip(*results, strict=True):
        assert other.dtype == "float32"
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_nan_in_the_first_epoch_of_all():
    x, y = np.ones((4, T, FEATURES), "float32"), np.ones((4, 8), "float32")
    x[2] = np.nan
    model = keras.Sequential([keras.Input((T, FEATURES)), keras_mnm.MNM(8)])
    model.compile("adam", "mse")
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    with pytest.raises(ValueError, match=r"nan at batch 2 .* has the weights of the beginning"):
        model.fit(x, y, 2, verbose=0, shuffle=False, callbacks=[keras_mnm.StopOnNaN()])
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new))
    for slot in model.optimizer.variables:
        if slot is not model.optimizer.learning_rate:
            assert not ops.convert_to_numpy(slot).any(), slot.path
    unbuilt = keras.Sequential([keras_mnm.MNM(8)])
    unbuilt.compile("adam", "mse")
    on_tensorflow = keras.backend.backend() == "tensorflow"
    how = "made anew" if on_tensorflow else "has the weights of the beginning"
    with pytest.raises(ValueError, match=how):
        unbuilt.fit(x, y, 2, verbose=0, shuffle=False, callbacks=[keras_mnm.StopOnNaN()])


def test_nan_by_the_last_update_of_an_epoch_is_reported_and_not_saved(tmp_path):
    """The gradient of a square root at zero is infinite, and the loss is not."""
    kernel = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), kernel])
    root = lambda y, found: ops.sqrt(ops.mean(ops.square(y - found)))
    model.compile("sgd", root)
    x, y = np.ones((4, 3), "float32"), np.zeros((4, 1), "float32")
    save = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"last update of epoch 1 made NaN.*of the beginning"):
        model.fit(x, y, verbose=0, callbacks=[keras_mnm.StopOnNaN(), save])
    assert not any(np.any(weight) for weight in model.get_weights())
    assert not (tmp_path / "model.keras").exists()


def test_several_memories_show_the_sum_of_their_objectives():
    inputs = keras.Input((T, FEATURES))
    first = keras_mnm.MNM(4, return_sequences=True)(inputs)
    both = keras.layers.Bidirectional(keras_mnm.MNM(4))(first)
    model = keras_mnm.Model(inputs, keras.layers.Dense(1)(both))
    model.compile("sgd", "mse", metrics=["mse"])
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((4, T, FEATURES)), rng.standard_normal((4, 1))
    for logs in (model.evaluate(x, y, verbose=0, return_dict=True), train_logs(model, x, y)):
        squared = logs["mse"]
        assert logs["meta_loss"] > 0.0
        assert logs["loss"] - squared == pytest.approx(logs["meta_loss"], rel=1e-4)
    model(x.astype("float32"))
    assert len(model.losses) == 3


def test_evaluate_lists_each_figure_once():
    inputs = keras.Input((T, FEATURES))
    model = keras_mnm.Model(inputs, keras.layers.Dense(1)(keras_mnm.MNM(4)(inputs)))
    model.compile("sgd", "mse")
    x, y = np.ones((4, T, FEATURES), "float32"), np.ones((4, 1), "float32")
    assert len(model.evaluate(x, y, verbose=0)) == 2
    assert len(model.evaluate(x, y, verbose=0, return_dict=True)) == 2


class WithASpare(keras.layers.Layer):
    """Has a memory that it never calls, and hands its inputs on."""

    def __init__(self):
        super().__init__()
        self.spare = keras_mnm.MNM(4)

    def build(self, input_shape):
        """Leaves the spare one as it is."""

    def call(self, inputs):
        return inputs


def test_a_memory_that_is_never_called_has_no_objective():
    inputs = keras.Input((T, FEATURES))
    outputs = keras.layers.Dense(1)(WithASpare()(keras_mnm.MNM(4)(inputs)))
    model = keras_mnm.Model(inputs, outputs)
    model.compile("sgd", "mse", metrics=["mse"])
    x, y = np.ones((4, T, FEATURES), "float32"), np.ones((4, 1), "float32")
    for logs in (model.evaluate(x, y, verbose=0, return_dict=True), train_logs(model, x, y)):
        assert logs["loss"] - logs["mse"] == pytest.approx(logs["meta_loss"], rel=1e-4)


def train_logs(model, x, y):
    return {name: values[0] for name, values in model.fit(x, y, verbose=0).history.items()}


def test_bad_inputs():
    with pytest.raises(ValueError, match=r"\[B, T, features\].*\(3, 5\)"):
        keras_mnm.MNM(4)(np.zeros((3, 5), "float32"))
    with pytest.raises(ValueError, match=r"number of features.*\(None, 5, None\)"):
        keras_mnm.MNM(4)(keras.Input((5, None)))
    layer = keras_mnm.MNM(4)
    x = np.zeros((3, 5, 2), "float32")
    layer(x)
    with pytest.raises(ValueError, match=r"axis -1 .* have value 2.*shape \(3, 5, 1\)"):
        layer(x[..., :1])
    for shape in [(3,), (3, 4), (2, 5)]:
        with pytest.raises(ValueError, match=rf"`mask`.*\[3, 5\].*{re.escape(str(shape))}"):
            layer(x, mask=np.ones(shape, bool))
    states = layer.get_initial_state(3)
    wrong = [*states[:-1], states[-1][:, :1]]
    for some in (wrong, layer.get_initial_state(2)):
        with pytest.raises(ValueError, match=r"`initial_state`.*B = 3.*Received shapes"):
            layer(x, initial_state=some)
    for some in (states[:2], layer.cell.unpack_state(states)):
        with pytest.raises(ValueError, match=r"`initial_state` must be 8 tensors.*`pack_state`"):
            layer(x, initial_state=some)
    state = layer.get_initial_state(2)
    with pytest.raises(ValueError, match="8 states.*Received 2 states"):
        layer.cell.unpack_state(state[:2])
    for wrong in (np.zeros((3, 1, 2), "float32"), np.zeros((3, 1), "float32")):
        with pytest.raises(ValueError, match="expected ndim=2|axis -1"):
            layer.cell(wrong, states)


def test_rows_without_a_step_do_not_count_in_the_meta_loss():
    layer = keras_mnm.MNM(4, return_state=True)
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype("float32")
    layer(x)
    alone = float(ops.convert_to_numpy(layer.losses[0]))
    mask = np.repeat([True, False], 2)[:, None] & np.ones((1, 5), bool)
    layer(np.concatenate([x, x]), mask=mask)
    assert ops.convert_to_numpy(layer.losses[0]) == pytest.approx(alone, rel=1e-5)
    layer(x, mask=np.zeros((2, 5), bool))
    assert ops.convert_to_numpy(layer.losses[0]) == 0.0


def test_meta_loss_takes_the_meta_state_alone():
    with pytest.raises(ValueError, match=r"\[B, 2\].*unpack_state.*\(3, 4\)"):
        keras_mnm.MetaLoss()(np.zeros((3, 4)), np.zeros((3, 4)))


def tanh(x):
    """Not Keras's."""
    return 1.7159 * ops.tanh(2.0 / 3.0 * x)


@pytest.mark.parametrize("place", ["memory", "controller"])
def test_an_activation_of_the_same_name_is_not_taken_for_keras(place):
    def make(**options):
        keras.utils.set_random_seed(0)
        if place == "controller":
            cell = keras.layers.LSTMCell(4, activation=tanh)
            return keras_mnm.MNM(4, controller=cell, **options)
        return keras_mnm.MNM(4, memory_activation=tanh, **options)

    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype("float32")
    layer = make()
    found, plain = layer(x), make(unroll=True)(x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(plain), rtol=1e-5, atol=1e-6
    )
    assert not layer._can_fuse(x.shape[1])


@pytest.mark.parametrize(
    ("dtype", "parts"),
    [
        ("float32", {"controller": "float16"}),
        ("float64", {"controller": "float32"}),
        ("float64", {"feedback": "float32"}),
    ],
)
def test_parts_may_have_a_dtype_of_their_own(dtype, parts):
    def make(**options):
        keras.utils.set_random_seed(0)
        if "controller" in parts:
            options["controller"] = keras.layers.LSTMCell(
                4, recurrent_initializer="glorot_uniform", dtype=parts["controller"]
            )
        if "feedback" in parts:
            options["feedback"] = keras_mnm.BFPF(4, 3, dtype=parts["feedback"])
        return keras_mnm.MNM(4, dtype=dtype, **options)

    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(dtype)
    found, plain = (ops.convert_to_numpy(make(unroll=unroll)(x)) for unroll in (False, True))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)


class FromOnes(keras.layers.SimpleRNNCell):
    def get_initial_state(self, batch_size):
        return [ops.ones((batch_size, self.units))]


def test_reset_state_gives_the_controller_its_own_beginning():
    layer = keras_mnm.MNM(4, controller=FromOnes(4), stateful=True)
    layer(keras.Input(batch_shape=(2, 5, 3)))
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype("float32")
    first, later = (ops.convert_to_numpy(layer(x)) for _ in range(2))
    layer.reset_state()
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), first, rtol=1e-6)
    assert np.abs(later - first).max() > 1e-3


def test_half_precision_does_not_round_the_meta_objective():
    layer = keras_mnm.MetaLoss(dtype="mixed_bfloat16")
    layer(np.zeros((1, 2), "float32"), np.array([[300.3, 301.0]], "float32"))
    assert ops.convert_to_numpy(layer.losses[0]) == pytest.approx(300.3 / 301.0, rel=1e-5)


def test_a_mask_passes_the_meta_loss():
    inputs = keras.Input((T, FEATURES))
    cell = keras_mnm.MNMCell(UNITS, D)
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    outputs, *states = layer(keras.layers.Masking()(inputs))
    outputs = keras_mnm.MetaLoss()(outputs, cell.unpack_state(states).meta)
    model = keras.Model(inputs, [outputs, keras.layers.GlobalAveragePooling1D()(outputs)])
    x = np.ones((1, T, FEATURES), "float32")
    x[:, 2:] = 0.0
    outputs, mean = (ops.convert_to_numpy(y) for y in model(x))
    np.testing.assert_allclose(mean, outputs[:, :2].mean(axis=1), rtol=1e-5)


def test_settings_are_told_once():
    """What is assigned is what is computed with, or an error."""
    layer = keras_mnm.MNM(4, step_size=0.1, meta_loss_weight=0.5)
    for owner, name in ((layer, "meta_loss_weight"), (layer.cell, "step_size")):
        with pytest.raises(AttributeError):
            setattr(owner, name, 0.3)
    layer.meta_loss.weight, layer.cell.memory.step_size = 0.25, 0.2
    assert (layer.meta_loss_weight, layer.cell.step_size, layer.step_size) == (0.25, 0.2, 0.2)
    config = layer.get_config()
    assert (config["meta_loss_weight"], config["step_size"]) == (0.25, 0.2)


def test_the_pytorch_loop_of_the_benchmarks_is_the_same_model():
    if keras.backend.backend() != "torch":
        pytest.skip("the loop is in PyTorch")
    import torch
    from torch_mnm import TorchMNM

    layer = keras_mnm.MNM(UNITS, D, 2, return_sequences=True)
    x = torch.randn(B, T, FEATURES, device="cpu")
    outputs = layer(x)
    loop = TorchMNM(FEATURES, UNITS, D, 2)
    cell, memory = layer.cell, layer.cell.memory
    dense = {"interaction": cell.interaction, "rate": cell.rate, "output": cell.output_projection}
    dense["feedback"] = memory.feedback
    with torch.no_grad():
        for name, one in dense.items():
            getattr(loop, name).weight.copy_(one.kernel.value.T)
            getattr(loop, name).bias.copy_(one.bias.value)
        # Keras has the gates in the same order, i, f, c, o, and one bias where torch has two.
        loop.controller.weight_ih.copy_(cell.controller.kernel.value.T)
        loop.controller.weight_hh.copy_(cell.controller.recurrent_kernel.value.T)
        loop.controller.bias_ih.copy_(cell.controller.bias.value)
        loop.controller.bias_hh.zero_()
        loop.initial_memory.copy_(torch.stack([m.value for m in memory.initial_memory]))
    expected, meta = loop(x)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.losses[0], meta, rtol=1e-4, atol=1e-6)


def test_a_built_layer_s_configuration_is_of_an_unbuilt_one():
    """For inputs of another size, and under names of its own."""
    layer = keras_mnm.MNM(UNITS, D)
    layer(np.ones((B, T, FEATURES), "float32"))
    twin = keras_mnm.MNM.from_config(layer.get_config())
    assert twin(np.ones((B, T, FEATURES + 2), "float32")).shape == (B, UNITS)
    cells = keras.layers.StackedRNNCells([keras.layers.LSTMCell(4), keras.layers.GRUCell(3)])
    layer = keras_mnm.MNM(UNITS, D, controller=cells)
    layer(np.ones((B, T, FEATURES), "float32"))
    twin = keras_mnm.MNM.from_config(layer.get_config())
    assert twin(np.ones((B, T, FEATURES + 2), "float32")).shape == (B, UNITS)
    model = keras.Sequential(
        [keras.Input((T, FEATURES)), keras_mnm.MNM(4, return_sequences=True), keras_mnm.MNM(4)]
    )
    clone = keras.models.clone_model(model)
    paths = [weight.path for weight in clone.weights]
    assert len(set(paths)) == len(paths)
    assert [weight.shape for weight in clone.weights] == [weight.shape for weight in model.weights]


class Quarter(keras.initializers.Initializer):
    """Has no configuration, which Keras leaves to its author."""

    def __init__(self, value):
        self.value = value

    def __call__(self, shape, dtype=None):
        return ops.full(shape, self.value, dtype)


def test_initializers_without_a_configuration():
    options = {"kernel_initializer": Quarter(0.25), "memory_initializer": Quarter(0.5)}
    layer = keras_mnm.MNM(4, **options)
    layer.build((None, 5, 3))
    for weight, value in (
        (layer.cell.rate.kernel, 0.25),
        (layer.cell.interaction.kernel, 0.25),
        (layer.cell.memory.initial_memory[2], 0.5),
    ):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    seeded = Quarter(0.5)
    seeded.seed = 3
    assert keras_mnm.MNM(4, memory_initializer=seeded)(np.ones((2, 3, 1), "float32")).shape == (
        2,
        4,
    )


def test_a_memory_that_was_used_before_its_layer_is_built():
    layer = keras_mnm.MNM(4)
    layer.cell.memory.get_initial_state(2)
    used = [ops.convert_to_numpy(weight) for weight in layer.cell.memory.weights]
    layer(np.ones((2, 3, 1), "float32"))
    for found, expected in zip(layer.cell.memory.weights, used, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


def test_states_of_a_controller_in_half_precision():
    controller = keras.layers.LSTMCell(4, dtype="mixed_bfloat16")
    cell = keras_mnm.MNMCell(4, controller=controller)
    states = cell.get_initial_state(2)
    _, new = cell(np.ones((2, 3), "float32"), states)
    dtypes = [[keras.backend.standardize_dtype(x.dtype) for x in each] for each in (states, new)]
    assert dtypes[0] == dtypes[1] == ["float32"] * len(states)


def test_the_meta_loss_hands_on_its_outputs_in_their_dtype():
    meta = keras.Input((2,))
    for dtype in ("float32", "int32"):
        layer = keras_mnm.MetaLoss(dtype="mixed_bfloat16")
        symbolic = layer(keras.Input((3,), dtype=dtype), meta)
        eager = layer(ops.zeros((1, 3), dtype), ops.ones((1, 2)))
        assert symbolic.dtype == keras.backend.standardize_dtype(eager.dtype) == dtype


@pytest.mark.parametrize("layer", [keras_mnm.MNM, keras_mnm.SALU, keras_mnm.Plastic])
def test_any_number_but_zero_in_a_mask_is_a_step(layer):
    keras.utils.set_random_seed(0)
    layer, x = layer(4, return_sequences=True), keras.random.normal((2, 5, 3))
    tokens = np.array([[7, 3, 0, 2, 0], [0, 5, 5, 5, 9]])
    results = []
    for mask in (tokens, tokens != 0):
        outputs = layer(x, mask=mask)
        results.append([ops.convert_to_numpy(y) for y in (outputs, *layer.losses)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
