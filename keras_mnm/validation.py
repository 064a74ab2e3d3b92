"""Checks of arguments; every message says what came and what was expected."""

import numbers

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


def one_of(name, value, choices):
    """`value`, or a ValueError that lists `choices` when it is none of them."""
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}.")
    return value


def finite(name, tensor):
    """A ValueError when a tensor whose numbers can be read holds NaN or infinity."""
    if backend.is_concrete(tensor) and not bool(ops.all(ops.isfinite(tensor))):
        count = int(ops.sum(ops.cast(ops.logical_not(ops.isfinite(tensor)), "int32")))
        raise ValueError(
            f"`{name}` must be finite. Received {count} NaN or infinite number(s) in a tensor of "
            f"shape {tuple(tensor.shape)}; the memory was left as it was."
        )


def in_unit_interval(name, tensor):
    """A ValueError when a tensor whose numbers can be read leaves [0, 1] or is NaN."""
    if backend.is_concrete(tensor):
        numbers_ = np.asarray(ops.convert_to_numpy(tensor))
        if not np.all((numbers_ >= 0) & (numbers_ <= 1)):
            raise ValueError(
                f"`{name}` must lie in [0, 1]. Received numbers from {numbers_.min()} to "
                f"{numbers_.max()}; pass the rate through a sigmoid, or clip it."
            )
