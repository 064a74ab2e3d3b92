"""What a model's memory does at each step: the keys and values that it reads and writes."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_mnm import backend
from keras_mnm.layers import MNM


class MemoryTrace(NamedTuple):
    """The memory operations on a batch of sequences, as NumPy arrays; `H` heads, `D` units.

    Steps are in the order in which the layer takes them: with `go_backwards`, from the end.
    """

    read_keys: np.ndarray
    """`k^r`, `[B, T, H, D]`."""
    write_keys: np.ndarray
    """`k^w`, `[B, T, H, D]`."""
    values: np.ndarray
    """`v^w`, the target values written, `[B, T, H, D]`."""
    readouts: np.ndarray
    """The values read, `[B, T, H, D]`; their mean over heads is the read-out `v^r`."""
    rates: np.ndarray
    """`β`, `[B, T, 1]`, or a column for each memory layer with `rate_per_layer`."""
    write_norms: np.ndarray
    """How much each step changed the memory, `|φ_t - φ_{t-1}|`, `[B, T]`."""
    memory_norms: np.ndarray
    """`|φ|` over all layers of the memory, at the start and after each step, `[B, T + 1]`."""


@backend.no_gradient
def memory_trace(model, inputs, layer=None):
    """Runs a model's memory step by step and keeps what it read and wrote (Eq. 1).

    It begins with the empty memory, whatever states the layer has or is given. Padding counts as
    any other step here: give sequences without it.

    Args:
        model: A functional or sequential model with an `MNM` layer, not within another layer.
        inputs: Inputs of the model, `[B, T, ...]`.
        layer: The `MNM` layer, or its name; of several calls the first is traced. Defaults to
            `None`, the model's only one.

    Returns:
        A `MemoryTrace`.

    Example:

    >>> import keras, keras_mnm
    >>> model = keras.Sequential([keras.Input((5, 8)), keras_mnm.MNM(16)])
    >>> keras_mnm.memory_trace(model, keras.random.normal((2, 5, 8))).write_keys.shape
    (2, 5, 1, 16)
    """
    layer = memory_layer(model, layer)
    with keras.StatelessScope():  # the layers before it keep their states and counts
        sequences = model_before(model, layer)(inputs)
    if not sequences.shape[1]:
        raise ValueError(
            "the memory is traced on sequences with a step at least. Received inputs of which "
            f"{layer.name} gets the shape {tuple(sequences.shape)}."
        )
    cell, dtype = layer.cell, layer.compute_dtype
    steps = range(sequences.shape[1])
    states, records = cell.get_initial_state(batch_size=sequences.shape[0]), []
    norms = [_norm(cell.memory.matrices(cell.unpack_state(states).memory))]
    for t in reversed(steps) if layer.go_backwards else steps:
        before = cell.unpack_state(states)
        now = ops.cast(sequences[:, t], dtype)
        _, _, (read_keys, write_keys, values), rate = cell.interact(
            now, before.readout, before.controller
        )
        _, states = cell(now, states)
        after = cell.unpack_state(states)
        written = [new - old for new, old in zip(after.memory, before.memory, strict=True)]
        norms.append(_norm(cell.memory.matrices(after.memory)))
        record = (
            read_keys,
            write_keys,
            values,
            cell.memory.recall(read_keys, after.memory),
            rate,
            _norm(written),
        )
        records.append([ops.convert_to_numpy(x) for x in record])
    columns = [np.stack(arrays, axis=1) for arrays in zip(*records, strict=True)]
    return MemoryTrace(*columns, np.stack([ops.convert_to_numpy(x) for x in norms], axis=1))


def _norm(tensors):
    """The norm of several tensors `[B, ...]` together, `[B]`."""
    flat = [ops.reshape(x, (x.shape[0], -1)) for x in tensors]
    return ops.norm(ops.concatenate(flat, axis=-1), axis=-1)


def memory_layer(model, layer=None):
    """The `MNM` layer to trace, or a ValueError where `memory_trace` finds none or several."""
    if not hasattr(model, "inputs"):
        raise ValueError(
            "the memory of a functional or sequential model is traced, whose layers know their "
            f"inputs. Received {model!r}; call a sequential model once, or put the layer into a "
            "functional model of its own."
        )
    if isinstance(layer, str):
        layer = model.get_layer(layer)
    found = [layer] if layer else [each for each in model.layers if isinstance(each, MNM)]
    if len(found) != 1 or not isinstance(found[0], MNM):
        names = ", ".join(each.name for each in found if isinstance(each, MNM)) or "none"
        raise ValueError(
            "the memory of one MNM layer is traced; name it by `layer` where a model has several. "
            "Layers within other layers or models are not seen. "
            f"Received a model with the MNM layers: {names}; layer={layer!r}."
        )
    return found[0]


def model_before(model, layer):
    """The part of a model that makes a layer's input; a ValueError if the layer is another's."""
    layer_input = keras.tree.flatten(layer.input)[0]  # a mask follows where there is one
    model_input = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    try:
        return keras.Model(model_input, layer_input)
    except ValueError as error:
        raise ValueError(
            f"the layer {layer.name} is traced where it was called first, which was in another "
            "model; trace that model, or give this one a layer of its own."
        ) from error
