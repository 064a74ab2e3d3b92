import keras

from keras_mnm import backend
from keras_mnm.layers import MetaLoss
from keras_mnm.layers.meta_loss import RunningMetaLoss


@keras.saving.register_keras_serializable(package="keras_mnm")
class Model(keras.Model):
    """A `keras.Model` that shows `meta_loss` in `fit` and `evaluate` on JAX, too.

    On TensorFlow and torch any Keras model does, and this one differs in nothing. On JAX the logs
    of a step cannot see the layers' weights, so the step itself has to report them.

    Example:

    >>> import keras, keras_mnm
    >>> inputs = keras.Input((20, 8))
    >>> model = keras_mnm.Model(inputs, keras_mnm.MNM(16)(inputs))
    """

    if backend.TRACED_STEP_HIDES_STATE:

        @property
        def metrics(self):
            return [*super().metrics, *self._running_meta_losses()]

        def train_step(self, state, data):
            logs, state = super().train_step(state, data)
            return self._with_meta_loss(logs, state[1]), state

        def test_step(self, state, data):
            logs, state = super().test_step(state, data)
            return self._with_meta_loss(logs, state[1]), state

        def _running_meta_losses(self):
            layers = self._flatten_layers(include_self=False)
            return [RunningMetaLoss(layer) for layer in layers if isinstance(layer, MetaLoss)]

        def _with_meta_loss(self, logs, non_trainable_variables):
            mapping = zip(self.non_trainable_variables, non_trainable_variables, strict=True)
            with keras.StatelessScope(state_mapping=mapping):
                shown = {metric.name: metric.result() for metric in self._running_meta_losses()}
            return {**logs, **shown}
