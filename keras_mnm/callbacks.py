import keras
import numpy as np


class StopOnNaN(keras.callbacks.Callback):
    """Stops training at the first batch whose loss is NaN or infinite, and undoes the damage.

    Raises a ValueError that names the batch. The model gets back the weights it had at the
    beginning of the epoch, so that nothing of the bad batch stays learned.

    Example:

    >>> import keras_mnm
    >>> callbacks = [keras_mnm.StopOnNaN()]  # for model.fit(..., callbacks=callbacks)
    """

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._good_weights = self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self.model.set_weights(self._good_weights)
            raise ValueError(
                f"The loss became {loss} at batch {batch + 1} of epoch {self._epoch + 1}. The "
                "model has the weights of the beginning of that epoch. Look for NaN or infinity "
                "in this batch; if its numbers are finite, lower the learning rate or clip the "
                "gradients (global_clipnorm=10 in the optimizer)."
            )
