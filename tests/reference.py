"""The paper's equations in NumPy with plain loops; the oracle of the tests.

Shares no code with the package: one sample at a time, matrices in the paper's orientation
(`M z`), every sum written out. Parameters come as a dict of arrays, see `cell_parameters`.
"""

import numpy as np


def tanh(x):
    return np.tanh(x)


def linear(x):
    return x


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def memory_layers(matrices, key, activation=tanh, output_activation=linear):
    """All activations z^0..z^L of one key; `matrices[l]` maps by `M @ z`."""
    activations = [key]
    for number, matrix in enumerate(matrices):
        total = np.zeros(matrix.shape[0])
        for row in range(matrix.shape[0]):
            for column in range(matrix.shape[1]):
                total[row] += matrix[row, column] * activations[-1][column]
        last = number == len(matrices) - 1
        activations.append(output_activation(total) if last else activation(total))
    return activations


def read(matrices, keys, activation=tanh, output_activation=linear):
    """Read-out values of the keys of one sample."""
    return np.stack([memory_layers(matrices, k, activation, output_activation)[-1] for k in keys])


def recall_error(matrices, keys, values, activation=tanh, output_activation=linear):
    """Mean over heads and units of (f(k) - v)²."""
    total = 0.0
    for key, value in zip(keys, values):
        recalled = memory_layers(matrices, key, activation, output_activation)[-1]
        for unit in range(len(value)):
            total += (recalled[unit] - value[unit]) ** 2
    return total / (len(keys) * len(values[0]))


def local_write(
    matrices, keys, expected, rates, step_size, activation=tanh, output_activation=linear
):
    """Eq. 4. `expected[h][l]` is what head h's target value asks of layer l + 1."""
    written = [matrix.copy() for matrix in matrices]
    for head, key in enumerate(keys):
        z = memory_layers(matrices, key, activation, output_activation)
        for layer in range(len(matrices)):
            for row in range(matrices[layer].shape[0]):
                error = z[layer + 1][row] - expected[head][layer][row]
                for column in range(matrices[layer].shape[1]):
                    written[layer][row, column] -= (
                        step_size * rates[layer] * error * z[layer][column]
                    )
    return written


def gradient_write(
    matrices, keys, values, rates, step_size, activation=tanh, output_activation=linear
):
    """Eqs. 2 and 3 by backpropagation written out, for tanh and linear layers."""

    def slope(sigma, z):
        return 1.0 - z**2 if sigma is tanh else np.ones_like(z)

    written = [matrix.copy() for matrix in matrices]
    for key, value in zip(keys, values):
        z = memory_layers(matrices, key, activation, output_activation)
        delta = (z[-1] - value) * slope(output_activation, z[-1])
        for layer in reversed(range(len(matrices))):
            for row in range(matrices[layer].shape[0]):
                for column in range(matrices[layer].shape[1]):
                    written[layer][row, column] -= (
                        step_size * rates[layer] * delta[row] * z[layer][column]
                    )
            below = np.zeros(matrices[layer].shape[1])
            for column in range(len(below)):
                for row in range(len(delta)):
                    below[column] += matrices[layer][row, column] * delta[row]
            delta = below * slope(activation, z[layer])
    return written


def lstm_step(p, x, h, c):
    """One step of the LSTM (Keras's gate order: input, forget, candidate, output)."""
    units = len(h)
    gates = p["lstm_bias"] + x @ p["lstm_kernel"] + h @ p["lstm_recurrent"]
    i, f = sigmoid(gates[:units]), sigmoid(gates[units : 2 * units])
    g, o = np.tanh(gates[2 * units : 3 * units]), sigmoid(gates[3 * units :])
    c = f * c + i * g
    return o * np.tanh(c), c


def run(p, sequence, mask=None, *, heads, rule, recall_delay=0, recall_decay=1.0, trace=None):
    """A sequence through the model, one sample.

    Returns:
        The outputs of all steps, and the meta loss of the sequence (Eq. 5, mean over steps).
        Masked steps change nothing; they repeat the output before them (zeros at first).
    """
    matrices = [matrix.T.copy() for matrix in p["initial_memory"]]
    depth, memory_units = len(matrices), matrices[0].shape[0]
    h = c = np.zeros(p["lstm_recurrent"].shape[0])
    readout = np.zeros(memory_units)
    output = np.zeros(p["output_bias"].shape[0])
    outputs, pairs, total, steps = [], [], 0.0, 0
    step_size = 2.0 / (heads * memory_units)
    for t, x in enumerate(sequence):
        if mask is not None and not mask[t]:
            outputs.append(output)
            continue
        h, c = lstm_step(p, np.concatenate([x, readout]), h, c)
        vectors = np.tanh(h @ p["interaction_kernel"] + p["interaction_bias"])
        vectors = vectors.reshape(3 * heads + 1, memory_units)
        read_keys, write_keys = vectors[:heads], vectors[heads : 2 * heads]
        values, rate_vector = vectors[2 * heads : 3 * heads], vectors[-1]
        rates = sigmoid(rate_vector @ p["rate_kernel"] + p["rate_bias"])
        rates = [rates[layer % len(rates)] for layer in range(depth)]
        if rule == "local":
            expected = []
            for value in values:
                flat = value @ p["feedback_kernel"] + p["feedback_bias"]
                expected.append(
                    [flat[i * memory_units : (i + 1) * memory_units] for i in range(depth)]
                )
            matrices = local_write(matrices, write_keys, expected, rates, step_size)
        else:
            matrices = gradient_write(matrices, write_keys, values, rates, step_size)
        recalled = read(matrices, read_keys)
        readout = recalled.mean(axis=0)
        output = np.concatenate([h, readout]) @ p["output_kernel"] + p["output_bias"]
        outputs.append(output)
        pairs.append((write_keys, values))
        if trace is not None:
            trace.append((read_keys, write_keys, values, recalled, rates))
        for tau in range(min(recall_delay, len(pairs) - 1) + 1):
            keys, targets = pairs[-1 - tau]
            total += recall_decay**tau * recall_error(matrices, keys, targets)
        steps += 1
    return np.stack(outputs), total / max(steps, 1)


def look_up(key, table):
    """Softmax attention of one key over a list of (key, value) pairs."""
    scores = np.array([key @ stored for stored, _ in table]) / np.sqrt(len(key))
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return sum(weight * value for weight, (_, value) in zip(weights, table))


def run_salu(p, sequence, mask, *, heads):
    """The outputs of a sequence through LSTM+SALU, one sample; masked steps as in `run`."""
    h = c = np.zeros(p["lstm_recurrent"].shape[0])
    output = np.zeros(p["output_bias"].shape[0])
    readout = np.zeros(p["output_kernel"].shape[0] - len(h))
    table, outputs = [], []
    for x, present in zip(sequence, mask):
        if present:
            h, c = lstm_step(p, np.concatenate([x, readout]), h, c)
            vectors = np.tanh(h @ p["interaction_kernel"] + p["interaction_bias"])
            read_keys, write_keys, values = vectors.reshape(3, heads, -1)
            table += list(zip(write_keys, values))
            readout = np.mean([look_up(key, table) for key in read_keys], axis=0)
            output = np.concatenate([h, readout]) @ p["output_kernel"] + p["output_bias"]
        outputs.append(output)
    return np.stack(outputs)


def array(tensor):
    """A backend's tensor or variable as a NumPy array in float64."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def cell_parameters(cell):
    """The parameters of an MNMCell or a SALUCell as NumPy arrays in float64."""
    parameters = {
        "lstm_kernel": array(cell.controller.kernel),
        "lstm_recurrent": array(cell.controller.recurrent_kernel),
        "lstm_bias": array(cell.controller.bias),
        "interaction_kernel": array(cell.interaction.kernel),
        "interaction_bias": array(cell.interaction.bias),
        "output_kernel": array(cell.output_projection.kernel),
        "output_bias": array(cell.output_projection.bias),
    }
    if not hasattr(cell, "memory"):
        return parameters
    parameters["rate_kernel"] = array(cell.rate.kernel)
    parameters["rate_bias"] = array(cell.rate.bias)
    parameters["initial_memory"] = [array(matrix) for matrix in cell.memory.initial_memory]
    if cell.memory.feedback is not None:
        parameters["feedback_kernel"] = array(cell.memory.feedback.kernel)
        parameters["feedback_bias"] = array(cell.memory.feedback.bias)
    return parameters
