"""What backends share."""

import keras
from keras import ops, tree

OFFERED = [
    "accelerator",
    "compile",
    "compiled_step",
    "custom_gradient",
    "gradient",
    "is_concrete",
    "no_gradient",
    "portable_ops",
    "put",
    "scan",
    "slice_update",
    "traced_once",
    "value_and_gradient",
]
"""What every backend's module offers, see the package."""


def refuse(*_):
    raise ValueError(
        f"On {keras.backend.backend()} the fused form of a keras_mnm layer can be differentiated "
        "once, in reverse; for more pass unroll=True to the layer, which then runs the plain loop. "
        "Where no more is wanted, pass the gradients that a compiled function returns through "
        "keras.ops.stop_gradient."
    )


def python_scan(step, carry, inputs, length, reverse):
    outputs = [None] * length
    for index in reversed(range(length)) if reverse else range(length):
        now = tree.map_structure(lambda x, index=index: x[index], inputs)
        carry, outputs[index] = step(carry, now)
    return carry, tree.map_structure(lambda *ys: ops.stack(ys), *outputs)
