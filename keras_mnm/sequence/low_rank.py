"""A memory layer within a chunk: a matrix less a sum of outer products."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_mnm import backend


class LowRank(NamedTuple):
    """`M_t = M_0 - Σ_{s≤t} k_sᵀ e_s`. Rows that are not written yet are zero."""

    matrix: object  # M_0, [B, D, D]
    keys: object  # K, [B, C H, D]
    errors: object  # E, [B, C H, D]

    def times(self, z, written=1.0):
        """`z M_t`; the mask `written` tells the rows that count."""
        return z @ self.matrix - (z @ transpose(self.keys) * written) @ self.errors

    def times_transposed(self, x, written=1.0, transposed=None):
        """`x M_tᵀ`; with `transposed`, which is `M_0ᵀ`, at less expense."""
        transposed = transpose(self.matrix) if transposed is None else transposed
        return x @ transposed - (x @ transpose(self.errors) * written) @ self.keys

    def after_chunk(self):
        """`M_C`, as a matrix."""
        return self.matrix - transpose(self.keys) @ self.errors


def put(rows, first, new):
    """`rows`, `[B, n, D]`, with `new` in place of those from `first` on.

    XLA does it in place if nothing reads the old rows afterwards: hence the masks elsewhere, which
    read the new rows as if they were the old ones.
    """
    zero = ops.zeros_like(first)
    return backend.put(rows, (zero, first, zero), new)


def rows_before(step, steps, rows_per_step, dtype):
    """A mask of `steps * rows_per_step` rows: 1 for those of steps before `step`.

    `step` is a scalar, or `[n, 1]` for a mask of its own for each of `n` vectors.
    """
    step_of_row = np.arange(steps * rows_per_step, dtype="int32") // rows_per_step
    return ops.cast(ops.less(ops.convert_to_tensor(step_of_row), step), dtype)


def transpose(x):
    """`xᵀ`, of matrices in batches."""
    return ops.swapaxes(x, -1, -2)
