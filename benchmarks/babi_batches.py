"""bAbI's batches: padding, shapes to compile, and what a batch costs beside its training step.

The environment variable BABI_DATA names a folder or archive of bAbI; without it, the official
archive is downloaded.
"""

import os
import statistics

import babi as example
import keras
import numpy as np
import run
import trainer
from markdown_table import markdown_table

from keras_mnm.tasks import babi

TIMED_LENGTHS = (0, 5, 12)
"""Which of the lengths to time a training step at."""


def measure(quick):
    questions = babi.load(os.environ.get("BABI_DATA"), "train", [15] if quick else babi.TASKS)
    data = babi.Babi(questions)
    sizes = [(data.batch_size_of(length), int(length)) for length in data.lengths]
    results = {
        "questions": len(questions.tasks),
        "tokens": int(questions.starts[-1]),
        "longest_question": int(questions.lengths.max()),
        "batches_a_pass": data.batches,
        "shapes": sizes,
        "padding_waste": data.padding,
        "padding_waste_without_buckets": waste_without_buckets(questions, data.batch_size),
        "steps": [],
    }
    keras.utils.set_random_seed(0)
    model = example.TASK.make_model({}, example.TASK.recurrent_layer("mnm-p"))
    loss, metrics = example.TASK.loss_and_metrics()
    trainer.compile_model(model, 1e-3, 1000, loss, metrics)
    for place in TIMED_LENGTHS[:1] if quick else TIMED_LENGTHS:
        length = sizes[place][1]
        index = next(i for i in range(data.batches) if data.rows(i)[0] == length)
        batch = data[index]
        model.train_on_batch(*batch)  # compiles
        makes = [run.seconds_of(lambda i=index: data[i]) for _ in range(20)]
        steps = [run.seconds_of(lambda b=batch: model.train_on_batch(*b)) for _ in range(3)]
        results["steps"].append(
            {
                "shape": sizes[place],
                "batch_seconds": statistics.median(makes),
                "step_seconds": statistics.median(steps),
            }
        )
    return results


def waste_without_buckets(questions, batch_size):
    """Share of padding when each batch of random questions is padded to its longest."""
    order = np.random.default_rng(0).permutation(len(questions.tasks))
    tokens = 0
    for start in range(0, len(order), batch_size):
        lengths = questions.lengths[order[start : start + batch_size]]
        tokens += len(lengths) * lengths.max()
    return 1.0 - float(questions.starts[-1] / tokens)


def table(results):
    lines = [
        f"{results['questions']:,} questions, {results['tokens']:,} tokens; "
        f"{results['batches_a_pass']:,} batches a pass in {len(results['shapes'])} shapes.",
        f"Padding: {results['padding_waste']:.1%} of all tokens; "
        f"{results['padding_waste_without_buckets']:.1%} without buckets.",
        "",
    ]
    rows = []
    for row in results["steps"]:
        (size, length), batch, step = row["shape"], row["batch_seconds"], row["step_seconds"]
        cells = f"{1e3 * batch:.2f}", f"{1e3 * step:.0f}", f"{batch / step:.2%}"
        rows.append([f"{size} × {length}", *cells])
    columns = ["batch × length", "making the batch, ms", "training step, ms", "share"]
    return "\n".join([*lines, markdown_table(columns, rows)])
