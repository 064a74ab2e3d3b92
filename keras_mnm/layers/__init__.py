from keras_mnm.layers.bfpf import BFPF
from keras_mnm.layers.meta_loss import MetaLoss
from keras_mnm.layers.mnm import MNM
from keras_mnm.layers.mnm_cell import MNMCell, MNMState
from keras_mnm.layers.neural_memory import NeuralMemory
from keras_mnm.layers.plastic import Plastic
from keras_mnm.layers.plastic_cell import PlasticCell
from keras_mnm.layers.salu import SALU
from keras_mnm.layers.salu_cell import SALUCell, SALUState
from keras_mnm.layers.thermometer import Thermometer

__all__ = [
    "BFPF",
    "MNM",
    "SALU",
    "MNMCell",
    "MNMState",
    "MetaLoss",
    "NeuralMemory",
    "Plastic",
    "PlasticCell",
    "SALUCell",
    "SALUState",
    "Thermometer",
]
