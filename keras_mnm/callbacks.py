import keras
import numpy as np

from keras_mnm.trace import memory_layer, memory_trace, model_before
from keras_mnm.validation import number


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at a NaN or infinity in loss or trained weights, and undoes the damage.

    Raises a ValueError that names the batch, or the epoch whose last update spoiled the weights.
    The model and its optimizer get back the values they had at the beginning of the epoch, so that
    nothing of the bad batch stays learned. Put it before the callbacks that save the model.

    Example:

    >>> import keras_mnm
    >>> callbacks = [keras_mnm.StopOnNaN()]  # for model.fit(..., callbacks=callbacks)
    """

    def on_epoch_begin(self, epoch, logs=None):
        optimizer = self.model.optimizer
        if self.model.built and not optimizer.built:  # else its first step would build it
            optimizer.build(self.model.trainable_variables)
        self._epoch = epoch
        variables = [*self.model.variables, *optimizer.variables]
        self._good = [(v, keras.ops.convert_to_numpy(v).copy()) for v in variables]

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self._undo(f"The loss became {loss} at batch {batch + 1} of epoch {self._epoch + 1}.")

    def on_epoch_end(self, epoch, logs=None):
        # A finite loss may have a gradient that is not, which shows in the next loss, if any.
        for weight in self.model.trainable_variables:
            if not bool(keras.ops.all(keras.ops.isfinite(weight))):
                self._undo(
                    f"The last update of epoch {epoch + 1} made NaN or infinity of the weight "
                    f"{weight.path}."
                )

    def _undo(self, what):
        # Before the weights are put back: on JAX `self.model` fetches those of the last step.
        known = {id(variable) for variable, _ in self._good}
        undone = all(id(variable) in known for variable in self.model.variables)
        for variable, value in self._good:
            variable.assign(value)
        weights = (
            "has the weights of the beginning of that epoch"
            if undone
            else "was not built before `fit`, so that it has to be made anew"
        )
        raise ValueError(
            f"{what} The model {weights}. Look for NaN or infinity in that batch; if its numbers "
            "are finite, lower the learning rate or clip the gradients (global_clipnorm=10 in the "
            "optimizer)."
        )


class MemoryMonitor(keras.callbacks.Callback):
    """Logs how large the memory and its writes become, and stops training when they blow up.

    After each epoch the model reads `inputs`; the logs get `memory_norm`, the largest norm of a
    sample's memory after its last step, and `write_norm`, the largest change in one step. Put it
    before the callbacks that write logs to files.

    Args:
        inputs: Inputs of the model, a few samples without padding: `[B, T, ...]`.
        max_growth: Number; a memory whose norm, at any step, is more than so many times that of
            the initial one (if that is not zero), or not finite, ends training with a ValueError.
            Defaults to `100`.
        layer: The `MNM` layer or its name, see `keras_mnm.memory_trace`. Defaults to `None`, the
            model's only one.

    Example:

    >>> import keras, keras_mnm
    >>> model = keras.Sequential([keras.Input((5, 8)), keras_mnm.MNM(16)])
    >>> model.compile("adam", "mse")
    >>> x, y = keras.random.normal((4, 5, 8)), keras.random.normal((4, 16))
    >>> monitor = keras_mnm.MemoryMonitor(x[:2])
    >>> history = model.fit(x, y, verbose=0, callbacks=[monitor]).history
    >>> history["memory_norm"][0] > history["write_norm"][0] > 0.0
    True
    """

    def __init__(self, inputs, max_growth=100.0, layer=None):
        super().__init__()
        self.inputs = inputs
        self.max_growth = number("max_growth", max_growth, low=1.0)
        self.layer = layer

    def on_train_begin(self, logs=None):
        if self.model.built:
            # Now, and not after a whole epoch.
            model_before(self.model, memory_layer(self.model, self.layer))

    def on_epoch_end(self, epoch, logs=None):
        trace = memory_trace(self.model, self.inputs, self.layer)
        memory, write = float(trace.memory_norms.max()), float(trace.write_norms.max())
        initial = float(trace.memory_norms[0, 0])
        if logs is not None:
            logs["memory_norm"] = float(trace.memory_norms[:, -1].max())
            logs["write_norm"] = write
        if not np.isfinite(memory) or memory > self.max_growth * initial > 0.0:
            raise ValueError(
                f"The memory's norm became {memory:.3g} in epoch {epoch + 1}, with writes of up to "
                f"{write:.3g}; the initial memory has {initial:.3g}, and the limit is "
                f"{self.max_growth:g} times that. Lower `step_size` or the learning rate, or clip "
                "the gradients (global_clipnorm=10 in the optimizer)."
            )
