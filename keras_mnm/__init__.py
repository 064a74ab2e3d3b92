"""Metalearned Neural Memory as Keras 3 layers."""

from keras_mnm import ops, rl, tasks, visualize
from keras_mnm.callbacks import MemoryMonitor, StopOnNaN
from keras_mnm.layers import (
    BFPF,
    MNM,
    SALU,
    MetaLoss,
    MNMCell,
    MNMState,
    NeuralMemory,
    Plastic,
    PlasticCell,
    SALUCell,
    SALUState,
    Thermometer,
)
from keras_mnm.metrics import SequenceAccuracy, WrongBits
from keras_mnm.models import (
    Model,
    from_preset,
    list_presets,
    save_to_preset,
    token_model,
    vector_model,
)
from keras_mnm.trace import MemoryTrace, memory_trace

__version__ = "0.1.0"
__all__ = [
    "BFPF",
    "MNM",
    "SALU",
    "MNMCell",
    "MNMState",
    "MemoryMonitor",
    "MemoryTrace",
    "MetaLoss",
    "Model",
    "NeuralMemory",
    "Plastic",
    "PlasticCell",
    "SALUCell",
    "SALUState",
    "SequenceAccuracy",
    "StopOnNaN",
    "Thermometer",
    "WrongBits",
    "from_preset",
    "list_presets",
    "memory_trace",
    "ops",
    "rl",
    "save_to_preset",
    "tasks",
    "token_model",
    "vector_model",
    "visualize",
]
