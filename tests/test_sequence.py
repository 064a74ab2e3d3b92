"""The fused sequence form against the plain loop: outputs, states and all gradients."""

import finite_differences
import keras
import numpy as np
import pytest
from keras import ops

import keras_mnm

FEATURES, UNITS, MEMORY_UNITS = 3, 5, 4


def layers(rule, depth, heads, **options):
    """The same weights as a fused `MNM` and as a plain loop over its cell."""
    fused = keras_mnm.MNM(
        UNITS,
        MEMORY_UNITS,
        heads,
        depth,
        rule,
        return_sequences=True,
        return_state=True,
        dtype="float64",
        train_initial_memory=True,
        **options,
    )
    fused.build((None, None, FEATURES))
    rng = np.random.default_rng(depth + 10 * heads)
    for weight in fused.trainable_variables:
        weight.assign(rng.uniform(-1, 1, weight.shape))
    options = {name: getattr(fused, name) for name in ("go_backwards", "zero_output_for_mask")}
    plain = keras.layers.RNN(
        fused.cell, return_sequences=True, return_state=True, dtype="float64", **options
    )
    return fused, plain


def summary(layer, cell, x, mask, coefficients):
    """A scalar that depends on all outputs, final states and the meta objective."""
    outputs, *states = layer(x, mask=mask)
    state = cell.unpack_state(states)
    parts = [outputs, state.output, *state.controller, state.readout, *state.memory]
    total = ops.sum(state.meta[:, 0])
    for part, coefficient in zip(parts, coefficients, strict=True):
        total = total + ops.sum(part * np.resize(coefficient, part.shape))
    return total


def masks(rng, batch, steps):
    holes = rng.random((batch, steps)) < 0.7
    holes[0] = True
    if batch > 1:
        holes[1] = False  # a whole row
    return holes


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7, 64])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_fused_equals_plain(rule, depth, heads, steps, masked):
    rng = np.random.default_rng(steps)
    fused, plain = layers(rule, depth, heads, rate_per_layer=depth == 2)
    assert fused._can_fuse(np.zeros((1, steps, 1)))
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
