from keras_mnm.layers.bfpf import BFPF
from keras_mnm.layers.meta_loss import MetaLoss
from keras_mnm.layers.mnm import MNM
from keras_mnm.layers.mnm_cell import MNMCell, MNMState
from keras_mnm.layers.neural_memory import NeuralMemory

__all__ = ["BFPF", "MNM", "MNMCell", "MNMState", "MetaLoss", "NeuralMemory"]
