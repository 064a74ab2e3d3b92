"""Stateful inference, one time step a call: latency and memory over 100,000 calls."""

import statistics
import time

import keras
import numpy as np
from markdown_table import markdown_table

import keras_mnm

UNITS, CALLS, PARTS = 100, 100_000, 10


def measure(quick):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((1, UNITS), batch_size=1)
    outputs = keras_mnm.MNM(UNITS, stateful=True)(inputs)
    model = keras.Model(inputs, outputs)
    step = compiled(model)
    x = np.random.default_rng(0).standard_normal((64, 1, 1, UNITS)).astype("float32")
    for row in x:
        step(row)
    calls = 2000 if quick else CALLS
    parts = []
    for part in range(PARTS):
        seconds = []
        for call in range(calls // PARTS):
            start = time.perf_counter()
            output = keras.ops.convert_to_numpy(step(x[call % len(x)]))
            seconds.append(time.perf_counter() - start)
        seconds.sort()
        parts.append(
            {
                "calls": (part + 1) * calls // PARTS,
                "median_us": 1e6 * statistics.median(seconds),
                "p99_us": 1e6 * seconds[int(0.99 * len(seconds))],
                "resident_mb": resident_mb(),
                "largest_output": float(np.abs(output).max()),
            }
        )
    return {"parts": parts}


def compiled(model):
    """A call of the model as a server would run it: on TensorFlow one program, with its state."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(model, jit_compile=True)
    return model


def resident_mb():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def table(results):
    columns = {
        "calls": ("calls", ","),
        "median, us": ("median_us", ".0f"),
        "99th percentile, us": ("p99_us", ".0f"),
        "resident memory, MB": ("resident_mb", ".1f"),
        "largest output": ("largest_output", ".3f"),
    }
    rows = [
        [format(part[name], digits) for name, digits in columns.values()]
        for part in results["parts"]
    ]
    return markdown_table(columns, rows, text_columns=0)
