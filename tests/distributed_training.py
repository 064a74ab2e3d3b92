"""Trains one model on the same global batches with each engine of `docs/distributed.md`.

`python tests/distributed_training.py ENGINE` prints the logs of each epoch and the final weights as
JSON. Each engine has two devices: `mirrored` makes them, `multi_worker` is two processes with a
`TF_CONFIG`, and JAX has as many as `XLA_FLAGS` tells it.
"""

import json
import sys

import keras
import numpy as np

import keras_mnm

GLOBAL_BATCH, EPOCHS = 8, 2


def make_data():
    """Two global batches; how many steps are masked differs by sample."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * GLOBAL_BATCH, 5, 3)).astype("float32")
    for sample, length in enumerate(rng.integers(1, 6, len(x))):
        x[sample, length:] = 0.0
    return x, rng.standard_normal((len(x), 2)).astype("float32")


def make_model():
    """Both write rules and a heavy meta objective; SGD, for Adam would hide a wrong scale."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 3))
    hidden = keras.layers.Masking()(inputs)
    for rule in ("local", "gradient"):
        hidden = keras_mnm.MNM(
            4,
            memory_depth=1,
            write_rule=rule,
            meta_loss_weight=10.0,
            kernel_regularizer="l2",
            return_sequences=rule == "local",
            name=rule,
        )(hidden)
    model = keras_mnm.Model(inputs, keras.layers.Dense(2, name="dense")(hidden))
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    return model


def one_device():
    x, y = make_data()
    model = make_model()
    history = model.fit(x, y, batch_size=GLOBAL_BATCH, epochs=EPOCHS, shuffle=False)
    return model, history.history


def mirrored():
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    x, y = make_data()

    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        model = make_model()
    history = model.fit(x, y, batch_size=GLOBAL_BATCH, epochs=EPOCHS, shuffle=False)

    assert strategy.num_replicas_in_sync == 2
    return model, history.history


def multi_worker():
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else runs
    with strategy.scope():
        model = make_model()
    dataset = tf.data.Dataset.from_tensor_slices(make_data()).batch(GLOBAL_BATCH)
    dataset = strategy.experimental_distribute_dataset(dataset)
    update = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    history = []
    for _ in range(EPOCHS):
        model.reset_metrics()
        for batch in dataset:
            update(batch)
        history.append(model.get_metrics_result())

    assert strategy.num_replicas_in_sync == 2
    return model, {name: [float(logs[name]) for logs in history] for name in history[0]}


def data_parallel():
    x, y = make_data()

    distribution = keras.distribution.DataParallel()
    keras.distribution.set_distribution(distribution)
    model = make_model()
    history = model.fit(x, y, batch_size=GLOBAL_BATCH, epochs=EPOCHS, shuffle=False)

    assert distribution.num_model_replicas == 2
    return model, history.history


def train(engine):
    """The logs of each epoch and the weights after the last, by name."""
    model, history = engine()
    return {**history, **{weight.path: weight.numpy().tolist() for weight in model.weights}}


if __name__ == "__main__":
    engines = {engine.__name__: engine for engine in (mirrored, multi_worker, data_parallel)}
    print(json.dumps(train(engines[sys.argv[1]])))
