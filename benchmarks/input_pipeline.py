"""What a batch of dictionary inference costs to make, beside the training step that uses it."""

import keras
import trainer
from dictionary_inference import TASK

import keras_mnm

RATIOS = (("making a batch", "training step"),)
INSTANCES = ((4, 1), (8, 4), (12, 8), (16, 12))


def cases(quick):
    for instance in INSTANCES[:1] if quick else INSTANCES:
        instance = dict(zip(("support_size", "length"), instance))
        data = TASK.episodes(instance)
        yield (
            "support size {support_size}, length {length}".format(**instance),
            {
                "making a batch": lambda data=data: lambda: data[0],
                "training step": lambda i=instance, data=data: training_step(i, data),
            },
        )


def training_step(instance, data):
    keras.utils.set_random_seed(0)
    model = TASK.make_model(instance, keras_mnm.MNM(100, return_sequences=True))
    trainer.compile_model(model, 1e-3, 1000, *TASK.loss_and_metrics())
    batch = data[0]
    return lambda: model.train_on_batch(*batch)
