"""bAbI's validation stories that the training files have, too, and what is wrong of the others.

A story is a question with the facts before it and its answer. Two are the same as they are, or up
to an exchange of words of one kind (`--exchange-words`). The environment variable BABI_DATA names a
folder, an archive or a packed file of bAbI; without it, the official archive is downloaded.
"""

import os

import babi as example
import numpy as np
from markdown_table import markdown_table

import keras_mnm
from keras_mnm.tasks import babi

PRESET = "babi-mnm-p"


def measure(quick):
    tasks = (4, 15) if quick else tuple(babi.TASKS)
    source = os.environ.get("BABI_DATA")
    training, validation = (babi.load(source, split, tasks) for split in ("train", "valid"))
    exchange = babi.WordExchange(training)
    unchanged = dict.fromkeys(exchange.kinds, ())
    told = {
        "as they are": told_before(training, validation, unchanged),
        "up to an exchange": told_before(training, validation, exchange.kinds),
    }
    shares = {name: by_task(validation.tasks, known) for name, known in told.items()}
    new = ~told["up to an exchange"]
    data = babi.Babi(validation, batch_size=64, max_tokens=16384, fixed=True)
    wrong = example.wrong_answers(keras_mnm.from_preset(PRESET), data)
    return {"told": shares, "wrong_of_the_others": by_task(validation.tasks[new], wrong[new])}


def by_task(tasks, values):
    """The mean of some values of each task's questions."""
    return {int(task): float(values[tasks == task].mean()) for task in np.unique(tasks)}


def told_before(training, validation, kinds):
    """Whether each validation story is among the training stories, up to an exchange of words."""
    known = set(stories(training, kinds))
    return np.array([story in known for story in stories(validation, kinds)])


def stories(questions, kinds):
    """Each question as a tuple that words of one kind, exchanged, leave as it is."""
    for row, task in enumerate(questions.tasks.tolist()):
        tokens = [*questions.row(row).tolist(), *questions.answers[row].tolist()]
        yield task, in_order(tokens, kinds[task])


def in_order(tokens, kinds):
    """Tokens in which the words of each kind come in order: the first one is the kind's first."""
    left = {}
    for kind in kinds:
        left.update(dict.fromkeys(kind.tolist(), kind.tolist()))  # one list for all words of a kind
    becomes = {}
    for token in tokens:
        if token in left and token not in becomes:
            becomes[token] = left[token].pop(0)
    return tuple(becomes.get(token, token) for token in tokens)


def table(results):
    columns = {f"told in training, {name}": shares for name, shares in results["told"].items()}
    columns[f"{PRESET}, wrong of the others"] = results["wrong_of_the_others"]
    rows = []
    for task in next(iter(columns.values())):
        shares = [column.get(task) for column in columns.values()]
        cells = ["none" if share is None else f"{share:.1%}" for share in shares]
        rows.append([f"{task}: {babi.TASKS[int(task)]}", *cells])
    means = [np.mean(list(column.values())) for column in columns.values()]
    rows.append(["mean of those that have any", *(f"{mean:.2%}" for mean in means)])
    return markdown_table(["task", *columns], rows)
