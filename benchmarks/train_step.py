"""One training step (forward, backward, Adam) of one recurrent layer, by implementation."""

import keras
import numpy as np

import keras_mnm

BATCH, UNITS = 32, 100
LENGTHS = (20, 100, 441)
RATIOS = (
    ("MNM-p plain", "MNM-p PyTorch loop"),
    ("MNM-p fused", "MNM-p PyTorch loop"),
    ("MNM-p fused", "MNM-p plain"),
    ("MNM-g fused", "MNM-g plain"),
    ("MNM-p fused", "MNM-g fused"),
    ("MNM-p fused", "LSTM+SALU"),
)
"""(A, B): how many times faster A is than B."""


def cases(quick):
    """Yields a group's name and a dict from implementation to a function that makes its step."""
    for length in LENGTHS[:1] if quick else LENGTHS:
        yield (
            f"T={length}",
            {
                "MNM-p fused": lambda length=length: keras_step(fused("local"), length),
                "MNM-p plain": lambda length=length: keras_step(plain("local"), length),
                "MNM-p PyTorch loop": lambda length=length: torch_step("local", length),
                "MNM-g fused": lambda length=length: keras_step(fused("gradient"), length),
                "MNM-g plain": lambda length=length: keras_step(plain("gradient"), length),
                "LSTM+SALU": lambda length=length: keras_step(salu, length),
                "Keras LSTM": lambda length=length: keras_step(lstm, length),
            },
        )


def fused(rule):
    return keras_mnm.MNM(UNITS, write_rule=rule, return_sequences=True)


def plain(rule):
    """The loop over the cell by Keras's own RNN, with the meta objective."""

    def layer(inputs):
        cell = keras_mnm.MNMCell(UNITS, write_rule=rule)
        loop = keras.layers.RNN(cell, return_sequences=True, return_state=True)
        outputs, *states = loop(inputs)
        return keras_mnm.MetaLoss()(outputs, cell.unpack_state(states).meta)

    return layer


def salu(inputs):
    return keras_mnm.SALU(UNITS, return_sequences=True)(inputs)


def lstm(inputs):
    return keras.layers.LSTM(UNITS, return_sequences=True)(inputs)


def data(length):
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, BATCH, length, UNITS)).astype("float32")


def keras_step(layer, length):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((length, UNITS), batch_size=BATCH)
    model = keras.Model(inputs, layer(inputs))
    model.compile("adam", "mse", jit_compile=keras.backend.backend() != "torch")
    x, y = (keras.ops.convert_to_tensor(array) for array in data(length))
    return lambda: model.train_on_batch(x, y)


def torch_step(rule, length):
    import torch
    from torch_mnm import TorchMNM

    torch.manual_seed(0)
    model = TorchMNM(UNITS, UNITS, UNITS, write_rule=rule)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = (torch.from_numpy(array) for array in data(length))

    def step():
        optimizer.zero_grad()
        outputs, meta = model(x)
        loss = (outputs - y).square().mean() + meta
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step
