"""What layers make of their arguments: dtype policies, initializers and layers within layers."""

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


def copy_of(initializer):
    """An initializer that draws anew where it has no seed (Keras's repeat themselves)."""
    draws_anew = isinstance(getattr(initializer, "seed", None), keras.random.SeedGenerator)
    if draws_anew or not hasattr(initializer, "clone"):
        return initializer
    return initializer.clone()


def with_layers(config, *names):
    """A copy of a `get_config` with the layers of these names made, where it has them."""
    layers = {name: config[name] for name in names if name in config}
    return {**config, **{k: keras.saving.deserialize_keras_object(v) for k, v in layers.items()}}
