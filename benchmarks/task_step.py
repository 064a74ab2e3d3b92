"""A training step of the paper's tasks, by model: what an update of the learning curves costs."""

import functools

import keras
import trainer
from command_line import MODELS
from experiment import task_of

INSTANCES = (
    {"task": "dictionary", "support_size": 4, "length": 1},
    {"task": "dictionary", "support_size": 8, "length": 4},
    {"task": "dictionary", "support_size": 12, "length": 8},
    {"task": "dictionary", "support_size": 16, "length": 12},
    {"task": "double-copy", "length": 50},
    {"task": "priority-sort", "vectors": 20, "sorted_vectors": 16},
)
RATIOS = tuple(("mnm-p", model) for model in MODELS if model != "mnm-p")


def cases(quick):
    for instance in INSTANCES[:1] if quick else INSTANCES:
        task = task_of(instance)
        yield (
            task.instance_name(instance),
            {model: functools.partial(make, task, instance, model) for model in MODELS},
        )


def make(task, instance, model):
    keras.utils.set_random_seed(0)
    model = task.make_model(instance, task.recurrent_layer(model))
    trainer.compile_model(model, 1e-3, 1000, *task.loss_and_metrics())
    batch = task.episodes(instance)[0]
    return lambda: model.train_on_batch(*batch)
