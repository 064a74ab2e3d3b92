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
    seed = getattr(initializer, "seed", None)
    if seed is None or isinstance(seed, keras.random.SeedGenerator):  # none to repeat
        return initializer
    return initializer.clone()


def with_layers(config, *names):
    """A copy of a `get_config` with the layers of these names made, where it has them.

    They are left to be built with the layer: for its inputs, under its name.
    """
    layers = {}
    for name in config.keys() & set(names):
        own = config[name] and {**config[name], "build_config": None}
        layers[name] = keras.saving.deserialize_keras_object(own)
    return {**config, **layers}
