"""What mixed precision leaves alone."""

import keras


def at_least_float32(dtype):
    """The dtype policy of a layer that carries a memory: `float32` in place of a half precision.

    A memory is a sum of hundreds of small changes, which half precision rounds away
    (`benchmarks/half_precision.py`); a step count in bfloat16 stays at 256.
    """
    policy = keras.dtype_policies.get(dtype)
    if policy.compute_dtype in ("float16", "bfloat16"):
        return keras.DTypePolicy("float32")
    return policy
