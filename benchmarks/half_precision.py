"""Why the memory stays float32: recall after many writes, with the memory rounded after each.

A memory of 100 units binds random keys to random values at rate 0.5, one pair a step, and is
rounded to a type after each write. The figures are the distance of the memory from that in float64,
relative to what was written, after 10, 100 and 1,000 writes.
Then what a mixed policy costs in training: the loss of dictionary inference (4, 1) over the last
100 of 600 updates, by policy.
"""

import keras
import numpy as np
import trainer
from dictionary_inference import TASK
from markdown_table import markdown_table

import keras_mnm

TYPES = ("float32", "bfloat16", "float16")
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
CHECKPOINTS = (10, 100, 1000)
UNITS = 100


def measure(quick):
    checkpoints = CHECKPOINTS[:1] if quick else CHECKPOINTS
    return {
        "memory": {rule: rounding(rule, checkpoints) for rule in ("local", "gradient")},
        "training": {policy: train(policy, 20 if quick else 600) for policy in POLICIES},
    }


def rounding(rule, checkpoints):
    states, distances = {}, {name: {} for name in TYPES}
    keras.utils.set_random_seed(0)
    memory = keras_mnm.NeuralMemory(UNITS, write_rule=rule, dtype="float64")
    for name in ("float64", *TYPES):
        states[name] = memory.get_initial_state(1)
    rng = np.random.default_rng(0)
    for step in range(1, checkpoints[-1] + 1):
        key, value = rng.uniform(-1, 1, (2, 1, 1, UNITS))
        for name, state in states.items():
            state = memory.write(key, value, 0.5, state)
            states[name] = [keras.ops.cast(keras.ops.cast(m, name), "float64") for m in state]
        if step in checkpoints:
            exact = flat(states["float64"])
            for name in TYPES:
                distance = np.linalg.norm(flat(states[name]) - exact) / np.linalg.norm(exact)
                distances[name][step] = float(distance)
    return distances


def flat(state):
    return np.concatenate([keras.ops.convert_to_numpy(m).ravel() for m in state])


def train(policy, updates):
    """Mean loss and accuracy over the last sixth of the updates."""
    instance = {"support_size": 4, "length": 1}
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        model = TASK.make_model(instance, keras_mnm.MNM(100, return_sequences=True))
    finally:
        keras.config.set_dtype_policy("float32")
    trainer.compile_model(model, 3e-3, updates, *TASK.loss_and_metrics())
    data = TASK.episodes(instance, steps=updates // 6)
    history = model.fit(data, epochs=6, verbose=0, shuffle=False).history
    return {"loss": history["loss"][-1], "accuracy": history["accuracy"][-1], "updates": updates}


def table(results):
    writes = next(iter(results["memory"]["local"].values()))
    memory = markdown_table(
        ["rule", "memory rounded to", *(f"after {int(n):,} writes" for n in writes)],
        [
            [rule, name, *(f"{x:.1e}" for x in row.values())]
            for rule, by_type in results["memory"].items()
            for name, row in by_type.items()
        ],
        text_columns=2,
    )
    training = markdown_table(
        ["policy", "loss", "accuracy"],
        [
            [policy, f"{row['loss']:.4f}", f"{row['accuracy']:.4f}"]
            for policy, row in results["training"].items()
        ],
    )
    return f"{memory}\n\n{training}"
