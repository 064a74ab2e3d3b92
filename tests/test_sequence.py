"""The fused sequence form against the plain loop: outputs, states and all gradients."""

import gc

import finite_differences
import keras
import numpy as np
import pytest
from keras import ops

import keras_mnm
from keras_mnm import sequence

FEATURES, UNITS, MEMORY_UNITS = 3, 5, 4


def layers(rule, depth, heads, dtype="float64", **options):
    """The same weights as a fused `MNM` and as a plain loop over its cell."""
    fused = keras_mnm.MNM(
        UNITS,
        MEMORY_UNITS,
        heads,
        depth,
        rule,
        return_sequences=True,
        return_state=True,
        dtype=dtype,
        train_initial_memory=True,
        **options,
    )
    fused.build((None, None, FEATURES))
    rng = np.random.default_rng(depth + 10 * heads)
    for weight in fused.trainable_variables:
        weight.assign(rng.uniform(-1, 1, weight.shape))
    options = {name: getattr(fused, name) for name in ("go_backwards", "zero_output_for_mask")}
    plain = keras.layers.RNN(
        fused.cell, return_sequences=True, return_state=True, dtype=dtype, **options
    )
    return fused, plain


def summary(layer, cell, x, mask, coefficients):
    """A scalar that depends on all outputs, final states and the meta objective."""
    outputs, *states = layer(x, mask=mask)
    state = cell.unpack_state(states)
    parts = [outputs, state.output, *state.controller, state.readout, *state.memory]
    total = ops.sum(state.meta[:, 0])
    for part, coefficient in zip(parts, coefficients, strict=True):
        weights = ops.cast(np.resize(coefficient, part.shape), part.dtype)
        total = total + ops.sum(part * weights)
    return total


def masks(rng, batch, steps):
    holes = rng.random((batch, steps)) < 0.7
    holes[0] = True
    if batch > 1:
        holes[1] = False  # a whole row
    return holes


CASES = [
    # rule, depth, heads, steps, masked
    ("local", 1, 1, 1, False),
    ("local", 2, 3, 7, True),
    ("local", 3, 2, 64, True),
    ("gradient", 1, 2, 2, True),
    ("gradient", 3, 1, 64, False),
    ("gradient", 4, 3, 7, True),
]


@pytest.mark.parametrize(("rule", "depth", "heads", "steps", "masked"), CASES)
def test_fused_equals_plain(rule, depth, heads, steps, masked):
    rng = np.random.default_rng(steps)
    even = depth % 2 == 0
    options = {
        "rate_per_layer": even,
        "memory_output_activation": "tanh" if even else "linear",
        "step_size": 0.3 if even else None,
    }
    fused, plain = layers(rule, depth, heads, **options)
    assert fused._can_fuse(steps)
    x = rng.standard_normal((3, steps, FEATURES))
    mask = masks(rng, 3, steps) if masked else None

    found, expected = fused(x, mask=mask), plain(x, mask=mask)
    for one, other in zip(found, expected, strict=True):
        compare(one, other)

    coefficients = rng.standard_normal((5 + depth, 97))
    x = keras.Variable(x, dtype="float64", name="x")
    variables = [x, *fused.trainable_variables]
    one, other = (
        finite_differences.gradients(
            lambda layer=layer: summary(layer, fused.cell, x.value, mask, coefficients), variables
        )
        for layer in (fused, plain)
    )
    for variable, a, b in zip(variables, one, other, strict=True):
        scale = np.abs(b).max() + 1e-12
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-9, err_msg=variable.path)


def compare(one, other, tolerance=1e-9):
    one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_another_activation_and_gradients_through_the_initial_state(rule):
    rng = np.random.default_rng(0)
    fused, plain = layers(rule, 2, 2, memory_activation="sigmoid")
    x = rng.standard_normal((3, 6, FEATURES))
    assert fused._can_fuse(x.shape[1])
    coefficients = rng.standard_normal((7, 97))
    variables = fused.trainable_variables

    def in_two_calls(layer):
        states = fused.cell.unpack_state(layer(x[:, :3])[1:])
        # `MNM` begins the objective anew in each call.
        states = fused.cell.pack_state(states._replace(meta=ops.zeros_like(states.meta)))
        later = lambda x, mask: layer(x, mask=mask, initial_state=states)
        return summary(later, fused.cell, x[:, 3:], None, coefficients)

    one, other = (
        finite_differences.gradients(lambda layer=layer: in_two_calls(layer), variables)
        for layer in (fused, plain)
    )
    for variable, a, b in zip(variables, one, other, strict=True):
        np.testing.assert_allclose(
            a, b, atol=1e-9 * (np.abs(b).max() + 1e-3), err_msg=variable.path
        )


@pytest.mark.parametrize("flag", ["go_backwards", "zero_output_for_mask"])
def test_flags(flag):
    rng = np.random.default_rng(0)
    fused, plain = layers("local", 2, 1, **{flag: True})
    x, mask = rng.standard_normal((3, 5, FEATURES)), masks(rng, 3, 5)
    for one, other in zip(fused(x, mask=mask), plain(x, mask=mask), strict=True):
        compare(one, other)


class ShiftedCell(keras.layers.LSTMCell):
    """An LSTM in name alone."""

    def call(self, inputs, states, training=False):
        output, states = super().call(inputs, states, training)
        return output + 1.0, states


@pytest.mark.parametrize(
    "options",
    [
        {"controller": keras.layers.GRUCell(UNITS)},
        {"recall_delay": 2},
        {"unroll": True},
        {"feedback": keras.layers.Dense(3 * 8)},
        {"memory_activation": "relu"},
        {"controller": keras.layers.LSTMCell(UNITS, recurrent_activation="hard_sigmoid")},
        {"feedback": keras_mnm.BFPF(8, 3, "tanh")},
        {"controller": ShiftedCell(8)},
        {"controller": keras.layers.LSTMCell(UNITS, use_bias=False)},
        {"feedback": keras_mnm.BFPF(8, 3, use_bias=False)},
        {"memory_output_activation": "relu"},
    ],
)
def test_what_cannot_be_fused_runs_the_plain_loop(options):
    layer = keras_mnm.MNM(8, **options)
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype("float32")
    assert layer(x).shape == (2, 8)
    assert not layer._can_fuse(x.shape[1])
    rng = np.random.default_rng(1)
    for weight in layer.trainable_variables:
        weight.assign(rng.uniform(-1, 1, weight.shape))
    compare(layer(x), keras.layers.RNN(layer.cell)(x), 1e-5)


@pytest.mark.parametrize("layer", [keras_mnm.MNM, keras_mnm.SALU])
def test_integers_are_taken_as_floats(layer):
    layer, x = layer(4), np.arange(24).reshape(2, 4, 3)
    compare(layer(x.astype("int32")), layer(x.astype("float32")))


@pytest.mark.parametrize("layer", [keras_mnm.MNM, keras_mnm.SALU])
def test_eager_steps_leave_nothing_behind(layer, monkeypatch):
    layer, x = layer(4), np.ones((2, 6, 3), "float32")
    layer(x)
    variables = layer.trainable_variables

    def tensors_after_a_step():
        finite_differences.gradients(lambda: ops.sum(layer(x) ** 2), variables)
        gc.collect()
        return sum(is_tensor(thing) for thing in gc.get_objects())

    tensors_after_a_step()
    first = tensors_after_a_step()
    if keras.backend.backend() == "tensorflow":  # which keeps whatever it has traced
        import tensorflow

        monkeypatch.delattr(tensorflow, "function")
    assert max(tensors_after_a_step() for _ in range(3)) <= first


def test_eager_calls_are_traced_once(monkeypatch):
    if keras.backend.backend() == "torch":
        pytest.skip("torch traces nothing")
    steps, step = [], sequence.fused.Sequence.step
    count = lambda *arguments: steps.append(0) or step(*arguments)
    monkeypatch.setattr(sequence.fused.Sequence, "step", count)
    layer, x = keras_mnm.MNM(3), np.ones((2, 7, 3), "float32")
    first = layer(x)
    traced = len(steps)
    assert traced > 0
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), ops.convert_to_numpy(first))
    assert len(steps) == traced


def test_shapes_of_the_past_are_forgotten():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow alone keeps a graph for each shape")
    layer = keras_mnm.MNM(4)

    def graphs_after_a_step(steps):
        sequence.fused._differentiable.cache_clear()
        x = np.ones((2, steps, 3), "float32")
        layer(x)
        finite_differences.gradients(lambda: ops.sum(layer(x)), layer.trainable_variables)
        gc.collect()
        return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())

    first = graphs_after_a_step(2)
    assert max(graphs_after_a_step(steps) for steps in (3, 4)) <= first + 1


def is_tensor(thing):
    return type(thing).__name__ in ("EagerTensor", "ArrayImpl", "Tensor")


@pytest.mark.parametrize("layer", [keras_mnm.MNM, keras_mnm.SALU])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("power", [1, 2])
def test_second_derivatives_are_refused_or_right(layer, power, compiled):
    """Of `‖d loss / dx‖²`: JAX has it, on the other backends the plain loop."""
    if compiled and keras.backend.backend() != "tensorflow":
        pytest.skip("eager and compiled differ on TensorFlow alone")
    x = np.random.default_rng(0).standard_normal((2, 3, 3)).astype("float32")
    fused, plain = layer(4), layer(4, unroll=True)
    for each in (fused, plain):
        each.build(x.shape)
    plain.set_weights(fused.get_weights())
    for each in (fused, plain):
        each.trainable = power > 1
    expected = penalty_gradient(plain, x, power, compiled)
    assert np.abs(expected).max() > 0
    if keras.backend.backend() == "jax":
        np.testing.assert_allclose(penalty_gradient(fused, x, power, compiled), expected, atol=1e-6)
        return
    with pytest.raises(ValueError, match="can be differentiated once, .* pass unroll=True"):
        penalty_gradient(fused, x, power, compiled)


def penalty_gradient(layer, x, power, compiled):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def gradient(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = ops.sum(layer(x) ** power)
                penalty = ops.sum(inner.gradient(loss, x) ** 2)
            return outer.gradient(penalty, x)

        return (tf.function(gradient) if compiled else gradient)(tf.constant(x)).numpy()
    if keras.backend.backend() == "jax":
        import jax

        slope = jax.grad(lambda x: ops.sum(layer(x) ** power))
        return np.asarray(jax.grad(lambda x: ops.sum(slope(x) ** 2))(x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    (slope,) = torch.autograd.grad(ops.sum(layer(x) ** power), [x], create_graph=True)
    return torch.autograd.grad(ops.sum(slope**2), [x])[0].numpy()


@pytest.mark.parametrize(("heads", "units"), [(1, 4), (1, 100), (3, 100), (4, 64), (1, 512)])
def test_chunks_pad_few_steps(heads, units):
    for steps in range(1, 500):
        length = sequence.chunk_length(steps, heads, units)
        assert 1 <= length <= min(steps, 28)
        assert -steps % length <= max(4, steps // 20)


def test_long_sequences_do_not_drift():
    """The memory after 400 writes in float32 against float64, from the same weights."""
    single, double = (keras_mnm.MNM(8, return_state=True, dtype=d) for d in ("float32", "float64"))
    x = np.random.default_rng(3).standard_normal((1, 400, 4)).astype("float32")
    for layer in (single, double):
        layer.build(x.shape)
    for one, other in zip(single.cell.weights, double.cell.weights, strict=True):
        other.assign(ops.cast(one, "float64"))
    finals = [
        ops.convert_to_numpy(layer.cell.unpack_state(layer(x)[1:]).memory[-1])
        for layer in (single, double)
    ]
    np.testing.assert_allclose(finals[0], finals[1], atol=1e-5)
