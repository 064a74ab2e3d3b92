"""MNM-p written plainly in PyTorch, as a researcher would: an eager loop and autograd."""

import torch
from torch import nn


class TorchMNM(nn.Module):
    """The equations of an `MNMCell` with local writes and an LSTM controller, over a sequence."""

    def __init__(self, features, units, memory_units, heads=1, depth=3):
        super().__init__()
        self.heads, self.depth = heads, depth
        self.controller = nn.LSTMCell(features + memory_units, units)
        self.interaction = nn.Linear(units, (3 * heads + 1) * memory_units)
        self.rate = nn.Linear(memory_units, 1)
        self.feedback = nn.Linear(memory_units, depth * memory_units)
        self.output = nn.Linear(units + memory_units, units)
        initial = torch.stack(
            [nn.init.orthogonal_(torch.empty(memory_units, memory_units)) for _ in range(depth)]
        )
        self.register_buffer("initial_memory", initial)

    def activations(self, keys, memory):
        z = [keys]
        for number, matrix in enumerate(memory):
            a = torch.bmm(z[-1], matrix)
            z.append(a if number == self.depth - 1 else torch.tanh(a))
        return z

    def write(self, memory, keys, values, rate):
        step = 2.0 / (self.heads * keys.shape[-1]) * rate[:, :, None]
        z = self.activations(keys, memory)
        expected = self.feedback(values).chunk(self.depth, dim=-1)
        return [
            matrix - torch.bmm(below.transpose(1, 2), step * (above - wanted))
            for matrix, below, above, wanted in zip(memory, z[:-1], z[1:], expected)
        ]

    def forward(self, sequence):
        batch, steps, _ = sequence.shape
        h = sequence.new_zeros(batch, self.controller.hidden_size)
        c = torch.zeros_like(h)
        units = self.initial_memory.shape[-1]
        readout = sequence.new_zeros(batch, units)
        memory = [m.expand(batch, -1, -1).clone() for m in self.initial_memory]
        outputs, meta = [], 0.0
        for t in range(steps):
            h, c = self.controller(torch.cat([sequence[:, t], readout], -1), (h, c))
            vectors = torch.tanh(self.interaction(h)).view(batch, 3 * self.heads + 1, units)
            read_keys, write_keys, values = vectors[:, :-1].chunk(3, dim=1)
            memory = self.write(
                memory, write_keys, values, torch.sigmoid(self.rate(vectors[:, -1]))
            )
            readout = self.activations(read_keys, memory)[-1].mean(1)
            meta = meta + (self.activations(write_keys, memory)[-1] - values).square().mean()
            outputs.append(self.output(torch.cat([h, readout], -1)))
        return torch.stack(outputs, 1), meta / steps
