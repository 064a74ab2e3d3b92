"""What all tasks share: batches that depend on a seed and their number alone."""

import keras
import numpy as np

from keras_mnm.validation import checked_seed, integer


class Episodes(keras.utils.PyDataset):
    """Fresh batches of a task for `model.fit` and `model.evaluate`.

    Batch `i` of epoch `e` depends on `(seed, e, i)` alone, so that a run which is resumed at epoch
    `e` with `first_epoch=e` sees the batches that an unbroken one would have seen, in the same
    order with `fit(shuffle=False)`. The attribute `epoch` counts those that `fit` took to their
    last batch; a callback may set it, as when one epoch begins at which `BackupAndRestore` goes on.
    A subclass has `draw(rng, batch_size)`, which returns inputs and targets.

    Args:
        batch_size: Defaults to `32`.
        steps: Batches an epoch. Defaults to `100`.
        seed: Non-negative integer under 2**32. Defaults to `0`.
        first_epoch: The epoch to begin with. Defaults to `0`.
        fixed: Whether every epoch has the same batches, for evaluation. Defaults to `False`.
        **kwargs: Arguments of `keras.utils.PyDataset`.
    """

    def __init__(self, batch_size=32, steps=100, seed=0, first_epoch=0, fixed=False, **kwargs):
        super().__init__(**kwargs)
        self.batch_size = integer("batch_size", batch_size)
        self.steps = integer("steps", steps)
        self.seed = checked_seed(seed)
        self.epoch = integer("first_epoch", first_epoch, minimum=0)
        self.fixed = fixed
        self._begun = self._whole = False

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        self._take(index)
        rng = np.random.default_rng((self.seed, self.epoch, index))
        return self.draw(rng, self.batch_size)

    def draw(self, rng, batch_size):
        """Inputs and targets of `batch_size` episodes."""
        raise NotImplementedError

    def _take(self, index):
        """Notes that this batch was asked for."""
        self._whole |= index == len(self) - 1

    def on_epoch_begin(self):
        self._begun, self._whole = True, False

    def on_epoch_end(self):
        # Keras ends one before the first, too, and another of which it built the model.
        if self._begun and self._whole and not self.fixed:
            self.epoch += 1
        self._begun = False
