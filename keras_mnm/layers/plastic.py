import keras

from keras_mnm.layers.memory_rnn import MemoryRNN
from keras_mnm.layers.plastic_cell import PlasticCell


@keras.saving.register_keras_serializable(package="keras_mnm")
class Plastic(MemoryRNN, cell_class=PlasticCell):
    """A recurrent network with Hebbian plasticity (Miconi et al. 2018), a baseline of the paper.

    Runs a `PlasticCell` over a sequence in Keras's plain loop.

    Args:
        units: Positive integer, units of the network and of the output.
        homogeneous: Whether all connections share one plasticity. Defaults to `False`.
        activation: The activation. Defaults to `"tanh"`.
        return_sequences: Whether to return all outputs, `[B, T, units]`, or the last one,
            `[B, units]`. Defaults to `False`.
        return_state: Whether to return the final states, too. Defaults to `False`.
        **kwargs: Any other argument of `PlasticCell` or of `keras.layers.RNN`.

    Call arguments:
        sequences: `[B, T, features]`.
        initial_state: List of states to start from. Defaults to zeros.
        mask: Boolean `[B, T]`; `False` steps are skipped.

    Returns:
        All outputs, `[B, T, units]`, or the last one, `[B, units]`; with `return_state`, the final
        states after it, as in `PlasticCell`.

    Example:

    >>> import keras, keras_mnm
    >>> layer = keras_mnm.Plastic(16, homogeneous=True, return_sequences=True)
    >>> layer(keras.random.normal((2, 5, 8))).shape == (2, 5, 16)
    True
    """

    def __init__(
        self,
        units,
        homogeneous=False,
        activation="tanh",
        *,
        return_sequences=False,
        return_state=False,
        **kwargs,
    ):
        super().__init__(
            units=units,
            homogeneous=homogeneous,
            activation=activation,
            cell_name="plastic_cell",
            return_sequences=return_sequences,
            return_state=return_state,
            **kwargs,
        )

    def _can_fuse(self, steps):
        return False
