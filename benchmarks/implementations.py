"""The recurrent layers that the benchmarks compare, each as a function that makes a training step.

A training step is a forward and a backward pass and an update by Adam, on random sequences with
`units` features, which the layer maps to `units` outputs.
"""

from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of a training step; the paper's, but for its length."""

    batch: int = 32
    length: int = 100
    units: int = 100
    memory_units: int = 100
    heads: int = 1


def data(shape):
    import numpy as np

    rng = np.random.default_rng(0)
    size = (2, shape.batch, shape.length, shape.units)
    return rng.standard_normal(size).astype("float32")


def keras_step(make_layer):
    def make(shape):
        import keras

        keras.utils.set_random_seed(0)
        inputs = keras.Input((shape.length, shape.units), batch_size=shape.batch)
        model = keras.Model(inputs, make_layer(shape)(inputs))
        model.compile("adam", "mse", jit_compile=keras.backend.backend() != "torch")
        x, y = (keras.ops.convert_to_tensor(array) for array in data(shape))
        return lambda: model.train_on_batch(x, y)

    return make


def fused(rule):
    def make_layer(shape):
        import keras_mnm

        sizes = (shape.units, shape.memory_units, shape.heads)
        return keras_mnm.MNM(*sizes, write_rule=rule, return_sequences=True)

    return make_layer


def plain(rule):
    """The loop over the cell by Keras's own RNN, with the meta objective."""

    def make_layer(shape):
        import keras

        import keras_mnm

        def layer(inputs):
            sizes = (shape.units, shape.memory_units, shape.heads)
            cell = keras_mnm.MNMCell(*sizes, write_rule=rule)
            loop = keras.layers.RNN(cell, return_sequences=True, return_state=True)
            outputs, *states = loop(inputs)
            return keras_mnm.MetaLoss()(outputs, cell.unpack_state(states).meta)

        return layer

    return make_layer


def lstm(shape):
    import keras

    return keras.layers.LSTM(shape.units, return_sequences=True)


def salu(shape):
    import keras_mnm

    return keras_mnm.SALU(shape.units, shape.memory_units, shape.heads, return_sequences=True)


def torch_step(make_model):
    def make(shape):
        import torch

        torch.manual_seed(0)
        model = make_model(shape)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        x, y = (torch.from_numpy(array) for array in data(shape))

        def step():
            optimizer.zero_grad()
            outputs, extra_loss = model(x)
            loss = (outputs - y).square().mean() + extra_loss
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return step

    return make


def torch_mnm(shape):
    from torch_mnm import TorchMNM

    return TorchMNM(shape.units, shape.units, shape.memory_units, shape.heads)


def titans(shape):
    """The neural memory alone, which has no controller, with updates every 16 steps."""
    import torch
    from titans_pytorch import NeuralMemory

    class Titans(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = NeuralMemory(dim=shape.units, chunk_size=16, heads=shape.heads)

        def forward(self, x):
            return self.memory(x)[0], 0.0

    return Titans()


def dnc(shape):
    """A Differentiable Neural Computer with as many slots as MNM has memory units."""
    import torch
    from dnc import DNC

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dnc = DNC(
                input_size=shape.units,
                hidden_size=shape.units,
                num_layers=1,
                nr_cells=shape.memory_units,
                cell_size=shape.memory_units,
                read_heads=shape.heads,
                batch_first=True,
            )

        def forward(self, x):
            return self.dnc(x, (None, None, None), reset_experience=True)[0], 0.0

    return Wrapped()


IMPLEMENTATIONS = {
    "MNM-p fused": keras_step(fused("local")),
    "MNM-p plain": keras_step(plain("local")),
    "MNM-p PyTorch loop": torch_step(torch_mnm),
    "MNM-g fused": keras_step(fused("gradient")),
    "MNM-g plain": keras_step(plain("gradient")),
    "LSTM+SALU": keras_step(salu),
    "Keras LSTM": keras_step(lstm),
    "titans-pytorch": torch_step(titans),
    "dnc": torch_step(dnc),
}
