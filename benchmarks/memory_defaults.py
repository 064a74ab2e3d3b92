"""How soon dictionary inference (4, 1) is learned, by what the memory starts from.

    python benchmarks/memory_defaults.py

Each variant changes one default of `MNM`. The figure is the number of updates until an epoch of
3,200 fresh episodes has symbol accuracy 0.99, or null where 500 updates did not do.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples"))

import keras
from command_line import STEPS_PER_EPOCH
from dictionary_inference import TASK
from run import save
from trainer import compile_model

import keras_mnm

VARIANTS = {
    "defaults": {},
    "tie_initial_keys=False": {"tie_initial_keys": False},
    "memory_initializer='glorot_uniform'": {"memory_initializer": "glorot_uniform"},
    "memory_output_activation='tanh'": {"memory_output_activation": "tanh"},
}
SEEDS, UPDATES, LEARNING_RATE = (0, 1), 500, 3e-3


class StopWhenLearned(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = logs["accuracy"] >= 0.99


def updates_needed(options, seed):
    keras.utils.set_random_seed(seed)
    instance = {"support_size": 4, "length": 1}
    model = TASK.make_model(instance, keras_mnm.MNM(100, return_sequences=True, **options))
    compile_model(model, LEARNING_RATE, 2500, *TASK.loss_and_metrics())
    data = TASK.episodes(instance, seed=seed, steps=STEPS_PER_EPOCH)
    epochs = UPDATES // STEPS_PER_EPOCH
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=[StopWhenLearned()]).history
    accuracy = history["accuracy"]
    learned = accuracy[-1] >= 0.99
    return {
        "updates": len(accuracy) * STEPS_PER_EPOCH if learned else None,
        "accuracy": accuracy,
        "meta_loss": history["meta_loss"],
    }


def main():
    results = {}
    for name, options in VARIANTS.items():
        results[name] = {f"seed {seed}": updates_needed(options, seed) for seed in SEEDS}
        print(name, {seed: run["updates"] for seed, run in results[name].items()}, flush=True)
    settings = {
        "task": "dictionary 4x1",
        "batch_size": 32,
        "learning_rate": LEARNING_RATE,
        "schedule": "cosine over 2,500 updates",
    }
    path = pathlib.Path(__file__).parent / "results" / "memory_defaults.json"
    save(path, results, seed=SEEDS, settings=settings)


if __name__ == "__main__":
    main()
