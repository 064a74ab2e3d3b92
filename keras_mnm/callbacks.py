import keras
import numpy as np


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at the first batch whose loss is NaN or infinite, and undoes the damage.

    Raises a ValueError that names the batch. The model and its optimizer get back the values they
    had at the beginning of the epoch, so that nothing of the bad batch stays learned.

    Example:

    >>> import keras_mnm
    >>> callbacks = [keras_mnm.StopOnNaN()]  # for model.fit(..., callbacks=callbacks)
    """

    def _variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._good = [keras.ops.convert_to_numpy(v).copy() for v in self._variables()]

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            for variable, value in zip(self._variables(), self._good, strict=True):
                variable.assign(value)
            raise ValueError(
                f"The loss became {loss} at batch {batch + 1} of epoch {self._epoch + 1}. The "
                "model has the weights of the beginning of that epoch. Look for NaN or infinity "
                "in this batch; if its numbers are finite, lower the learning rate or clip the "
                "gradients (global_clipnorm=10 in the optimizer)."
            )
