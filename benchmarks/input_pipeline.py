"""What a batch of dictionary inference costs to make, beside the training step that eats it."""

import keras
import trainer

import keras_mnm
from keras_mnm.tasks import dictionary

RATIOS = (("making a batch", "training step"),)
INSTANCES = ((4, 1), (8, 4), (12, 8), (16, 12))


def cases(quick):
    for instance in INSTANCES[:1] if quick else INSTANCES:
        data = dictionary.DictionaryInference(*instance)
        yield (
            "support size {}, length {}".format(*instance),
            {
                "making a batch": lambda data=data: lambda: data[0],
                "training step": lambda data=data: training_step(data),
            },
        )


def training_step(data):
    keras.utils.set_random_seed(0)
    steps = dictionary.sequence_length(data.support_size, data.length)
    recurrent = keras_mnm.MNM(100, return_sequences=True)
    model = keras_mnm.token_model(recurrent, len(dictionary.VOCABULARY), steps, data.length)
    trainer.compile_model(model, 1e-3, steps=1000)
    batch = data[0]
    return lambda: model.train_on_batch(*batch)
