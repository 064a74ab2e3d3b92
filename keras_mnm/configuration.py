"""What layers make of their arguments: dtype policies, initializers and layers within layers."""

import keras


def at_least_float32(dtype):
    """The dtype policy of a layer that carries a memory: `float32` in place of a half precision.

    A memory is a sum of hundreds of small changes, which half precision rounds away
    (`benchmarks/half_precision.py`); a step count in bfloat16 stays at 256. On JAX and torch, Keras
    rounds float64 to `float32` in some operations and not in others: there it becomes that, too.
    """
    policy = keras.dtype_policies.get(dtype)
    dtype = policy.compute_dtype
    if dtype in ("float16", "bfloat16") or keras.backend.result_type(dtype, float) != dtype:
        return keras.DTypePolicy("float32")
    return policy


def copy_of(initializer):
    """An initializer that draws anew where it has no seed (Keras's repeat themselves)."""
    seed = getattr(initializer, "seed", None)
    if seed is None or isinstance(seed, keras.random.SeedGenerator):  # none to repeat
        return initializer
    base = keras.initializers.Initializer
    has_config = isinstance(initializer, base) and type(initializer).get_config != base.get_config
    return initializer.clone() if has_config else initializer


def with_layers(config, *names):
    """A copy of a `get_config` with the layers of these names made, where it has them.

    They, and those within them, are left to be built with the layer: for its inputs, under its
    name.
    """
    layers = {
        name: keras.saving.deserialize_keras_object(_unbuilt(config[name]))
        for name in config.keys() & set(names)
    }
    return {**config, **layers}


def _unbuilt(config):
    if isinstance(config, list):
        return [_unbuilt(part) for part in config]
    if isinstance(config, dict):
        return {k: None if k == "build_config" else _unbuilt(part) for k, part in config.items()}
    return config
