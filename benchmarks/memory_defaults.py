"""How soon MNM-p learns dictionary inference (4, 1), by what its memory starts from.

Each variant changes a default of `MNM`, or that of the model's embedding. The figure is the number
of updates until an epoch of fresh episodes has `GOAL` of its symbols right.
"""

import keras
from command_line import STEPS_PER_EPOCH
from dictionary_inference import TASK
from markdown_table import markdown_table
from trainer import compile_model

import keras_mnm

LARGER = {"class_name": "Orthogonal", "config": {"gain": 2.0}}
VARIANTS = {
    "defaults": {},
    "tie_initial_keys=False": {"tie_initial_keys": False},
    "memory_initializer='glorot_uniform'": {"memory_initializer": "glorot_uniform"},
    "memory_output_activation='tanh'": {"memory_output_activation": "tanh"},
    "memory_initializer=Orthogonal(2.0)": {"memory_initializer": LARGER},
    "step_size=0.16": {"step_size": 0.16},
    "both": {"memory_initializer": LARGER, "step_size": 0.16},
    "embeddings in ±0.05": {"embeddings": "uniform"},
}
INSTANCE = {"support_size": 4, "length": 1}
SEEDS = (0, 1, 2)
UPDATES = 1000
GOAL = 0.99


def measure(quick):
    variants = {"defaults": {}} if quick else VARIANTS
    seeds, updates = (SEEDS[:1], STEPS_PER_EPOCH) if quick else (SEEDS, UPDATES)
    return {
        name: [learning(seed, updates, **options) for seed in seeds]
        for name, options in variants.items()
    }


def learning(seed, updates, embeddings=None, **options):
    """The history of a run that ends when the goal is reached, or after `updates`."""
    keras.utils.set_random_seed(seed)
    model = TASK.make_model(INSTANCE, keras_mnm.MNM(100, return_sequences=True, **options))
    if embeddings:  # an initializer, in place of that of unit variance
        weight = model.get_layer("embedding").embeddings
        weight.assign(keras.initializers.get(embeddings)(weight.shape))
    steps = TASK.steps(INSTANCE)  # by which the learning rate falls, as in the example
    compile_model(model, TASK.learning_rate, steps, *TASK.loss_and_metrics())
    data = TASK.episodes(INSTANCE, seed=seed, steps=STEPS_PER_EPOCH)
    epochs = updates // STEPS_PER_EPOCH
    stop = StopAtGoal()
    # With the batches of the example, in their order.
    history = model.fit(data, epochs=epochs, shuffle=False, callbacks=[stop], verbose=0).history
    accuracy, meta_loss = history["accuracy"], history["meta_loss"]
    return {"seed": seed, "most_updates": updates, "accuracy": accuracy, "meta_loss": meta_loss}


class StopAtGoal(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = logs["accuracy"] >= GOAL


def table(results):
    seeds = [f"seed {run['seed']}" for run in next(iter(results.values()))]
    rows = [[name, *map(updates_needed, runs)] for name, runs in results.items()]
    return markdown_table([f"updates to {GOAL:g} of the symbols", *seeds], rows)


def updates_needed(run):
    """As text: the updates to the goal, or how far those that there were have led."""
    accuracy = run["accuracy"][-1]
    if accuracy < GOAL:
        return f"{accuracy:.3f} after {run['most_updates']:,}"
    return f"{len(run['accuracy']) * STEPS_PER_EPOCH:,}"
