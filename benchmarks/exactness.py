"""The fused form against the plain loop: outputs, final states and every gradient.

Both rules, with and without masks, every depth and number of heads from 1 to 4, and T in
{1, 2, 7, 64, 441}; six pairs of depth and heads at T = 441, and throughout on JAX, which compiles
every case. A difference is relative to the largest entry of the same tensor. Then the drift: final
memories after 10,000 steps in float32 against the plain loop in float64.
"""

import itertools
import pathlib
import sys

from markdown_table import markdown_table

RULES, LENGTHS = ("local", "gradient"), (1, 2, 7, 64, 441)
SIZES = tuple(itertools.product((1, 2, 3, 4), repeat=2))
FEW_SIZES = ((1, 1), (1, 4), (2, 3), (3, 1), (4, 2), (4, 4))
BATCH, DRIFT_STEPS, DRIFT_UNITS = 3, 10_000, 32


def measure(quick):
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
    import conftest  # noqa: F401, lets JAX and torch have float64; before JAX is imported
    import keras

    few = quick or keras.backend.backend() == "jax"
    lengths = (1, 7) if quick else LENGTHS
    worst = {}
    for length, rule, dtype in itertools.product(lengths, RULES, ("float64", "float32")):
        sizes = FEW_SIZES if few or length == LENGTHS[-1] else SIZES
        found = [
            {
                "difference": difference(rule, depth, heads, masked, length, dtype),
                "depth": depth,
                "heads": heads,
                "masked": masked,
            }
            for (depth, heads), masked in itertools.product(sizes, (False, True))
        ]
        largest = max(found, key=lambda row: row["difference"])
        worst[f"{rule}, T={length}, {dtype}"] = {**largest, "cases": len(found)}
        print(rule, length, dtype, worst[f"{rule}, T={length}, {dtype}"], flush=True)
    steps = 50 if quick else DRIFT_STEPS
    return {
        "worst": worst,
        "drift_steps": steps,
        "drift": {rule: drift(rule, steps) for rule in RULES},
    }


def difference(rule, depth, heads, masked, length, dtype):
    """The largest of outputs, states and gradients, by the weights and inputs of the tests."""
    import finite_differences
    import keras
    import numpy as np
    import test_sequence

    rng = np.random.default_rng(length)
    layers = test_sequence.layers(rule, depth, heads, dtype)
    x = rng.standard_normal((BATCH, length, test_sequence.FEATURES)).astype(dtype)
    mask = test_sequence.masks(rng, BATCH, length) if masked else None
    coefficients = rng.standard_normal((5 + depth, 97))
    x = keras.Variable(x, dtype=dtype, name="x")
    variables = [x, *layers[0].trainable_variables]
    cell = layers[0].cell
    results = []
    for layer in layers:
        outputs = [keras.ops.convert_to_numpy(y) for y in layer(x.value, mask=mask)]
        results.append(
            outputs
            + finite_differences.gradients(
                lambda layer=layer: test_sequence.summary(layer, cell, x.value, mask, coefficients),
                variables,
            )
        )
    return max(relative(a, b) for a, b in zip(*results, strict=True))


def relative(one, other):
    import numpy as np

    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))


def drift(rule, steps):
    """How far float32 is from float64 in the final memory, fused and plain."""
    import keras
    import numpy as np

    import keras_mnm

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((1, steps, 8)).astype("float32")
    memories, weights = {}, None
    for name, dtype in (("exact", "float64"), ("fused", "float32"), ("plain", "float32")):
        layer = keras_mnm.MNM(DRIFT_UNITS, write_rule=rule, return_state=True, dtype=dtype)
        layer.build(x.shape)
        weights = weights or layer.get_weights()
        layer.set_weights(weights)
        if name != "fused":
            layer._can_fuse = lambda steps: False
        _, *states = layer(x)
        memory = layer.cell.unpack_state(states).memory
        memories[name] = np.concatenate([keras.ops.convert_to_numpy(m) for m in memory])
    return {name: relative(memories[name], memories["exact"]) for name in ("fused", "plain")}


def table(results):
    rows = []
    for key, row in results["worst"].items():
        where = f"L={row['depth']}, H={row['heads']}, {'masked' if row['masked'] else 'no mask'}"
        rows.append([key, where, f"{row['difference']:.1e}"])
    columns = ["case", "where", "largest relative difference"]
    lines = [markdown_table(columns, rows, text_columns=2), ""]
    for rule, row in results["drift"].items():
        lines.append(
            f"- {rule} rule, memory after {results['drift_steps']:,} steps, float32 against "
            f"float64: fused {row['fused']:.1e}, plain {row['plain']:.1e}"
        )
    return "\n".join(lines)
