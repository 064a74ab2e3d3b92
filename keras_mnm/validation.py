"""Checks of arguments; every message says what came and what was expected."""

import numbers

import keras
import numpy as np
from keras import ops

from keras_mnm import backend


def integer(name, value, minimum=1):
    """`value` as an int, or a ValueError when it is not an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(
            f"`{name}` must be an integer of at least {minimum}. Received: {name}={value!r}."
        )
    return int(value)


def checked_seed(seed):
    """`seed` as an int, or a ValueError when it is no number of 32 bits.

    NumPy takes a larger one for several numbers, so that `(2**32, 3)` and `(0, 1, 3)` draw alike.
    """
    if integer("seed", seed, minimum=0) >= 2**32:
        raise ValueError(f"`seed` must be less than 2**32. Received: seed={seed}.")
    return int(seed)


def number(name, value, low=0.0, high=np.inf):
    """`value`, or a ValueError when it is not a finite number in [low, high]."""
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not low <= value <= high
        or not np.isfinite(value)
    ):
        interval = f"in [{low:g}, {high:g}]" if np.isfinite(high) else f"of at least {low:g}"
        raise ValueError(
            f"`{name}` must be a finite number {interval}. Received: {name}={value!r}."
        )
    return value


def one_of(name, value, choices):
    """`value`, or a ValueError that lists `choices` when it is none of them."""
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}.")
    return value


def boolean(name, value):
    """`value` as a bool, or a ValueError when it is none."""
    return bool(one_of(name, value, (False, True)))


def fits(shape, expected):
    """Whether two shapes agree, as far as both are known."""
    return len(shape) == len(expected) and all(
        one == other or None in (one, other) for one, other in zip(shape, expected, strict=True)
    )


def one_step(cell, input_shape):
    """A ValueError when the input of a recurrent cell is not one time step of known features."""
    if len(input_shape) != 2:
        raise ValueError(
            f"{type(cell).__name__} takes one time step, [B, features]; use the layer of that name "
            "without 'Cell', or keras.layers.RNN, for [B, T, features]. Received shape "
            f"{tuple(input_shape)}."
        )
    known_features(cell, input_shape)


def known_features(layer, input_shape):
    """A ValueError when the last size of an input is not known."""
    if input_shape[-1] is None:
        raise ValueError(
            f"{type(layer).__name__} makes its weights by the number of features, the last size of "
            f"its input. Received shape {tuple(input_shape)}; give it, as in keras.Input((20, 8))."
        )


def finite(name, tensor):
    """A ValueError when a tensor whose numbers can be read holds NaN or infinity."""
    if _readable(tensor) and not bool(ops.all(ops.isfinite(tensor))):
        count = int(ops.sum(ops.cast(ops.logical_not(ops.isfinite(tensor)), "int32")))
        raise ValueError(
            f"`{name}` must be finite. Received {count} NaN or infinite number(s) in a tensor of "
            f"shape {tuple(tensor.shape)}."
        )


def in_unit_interval(name, tensor):
    """A ValueError when a tensor whose numbers can be read leaves [0, 1] or is NaN."""
    if _readable(tensor):
        numbers_ = np.asarray(ops.convert_to_numpy(tensor))
        if not np.all((numbers_ >= 0) & (numbers_ <= 1)):
            raise ValueError(
                f"`{name}` must lie in [0, 1]. Received numbers from {numbers_.min()} to "
                f"{numbers_.max()}; pass the rate through a sigmoid, or clip it."
            )


def _readable(tensor):
    return not keras.utils.is_keras_tensor(tensor) and backend.is_concrete(tensor)
