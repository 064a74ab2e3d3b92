"""A recurrent cell as a user would write one around `NeuralMemory` and `BFPF`."""

import keras
import numpy as np
import reference
from keras import ops
from reference import array

import keras_mnm


@keras.saving.register_keras_serializable(package="tests")
class StoreCell(keras.layers.Layer):
    """Stores the input's value under its key, and returns what is read with its query."""

    def __init__(self, units, write_rule="local", **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.write_rule = write_rule
        options = {"dtype": self.dtype_policy}
        if write_rule == "local":
            options["feedback"] = keras_mnm.BFPF(units, 2, dtype=self.dtype_policy)
        self.memory = keras_mnm.NeuralMemory(units, 2, write_rule, **options)
        self.project = keras.layers.Dense(3 * units, "tanh", dtype=self.dtype_policy)
        self.output_size = units
        self.state_size = [units, *self.memory.state_size]

    def build(self, inputs_shape):
        self.project.build(inputs_shape)
        self.memory.build()

    def call(self, inputs, states):
        query, key, value = ops.split(self.project(inputs)[:, None], 3, axis=-1)
        memory = self.memory.write(key, value, 0.5, states[1:])
        output = self.memory.read(query, memory)[:, 0]
        return output, [output, *memory]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "write_rule": self.write_rule}


def expected(cell, sequence, mask):
    """The outputs of one sample by the reference; masked steps repeat the one before."""
    matrices = [array(matrix).T for matrix in cell.memory.initial_memory]
    output, outputs, step_size = np.zeros(cell.units), [], 2 / cell.units
    for x, present in zip(sequence, mask):
        if present:
            vectors = np.tanh(x @ array(cell.project.kernel) + array(cell.project.bias))
            query, key, value = np.split(vectors[None], 3, axis=1)
            if cell.write_rule == "local":
                feedback = cell.memory.feedback
                pull = value @ array(feedback.kernel) + array(feedback.bias)
                pull = pull.reshape(1, 2, cell.units)
                matrices = reference.local_write(matrices, key, pull, [0.5, 0.5], step_size)
            else:
                matrices = reference.gradient_write(matrices, key, value, [0.5, 0.5], step_size)
            output = reference.read(matrices, query)[0]
        outputs.append(output)
    return np.stack(outputs)
