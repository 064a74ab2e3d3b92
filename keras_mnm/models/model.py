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
        _in_step = False

        def train_step(self, state, data):
            return self._step(super().train_step, state, data)

        def test_step(self, state, data):
            return self._step(super().test_step, state, data)

        def get_metrics_result(self):
            shown = [] if self._in_step else self._running_meta_losses()
            return {**super().get_metrics_result(), **{m.name: m.result() for m in shown}}

        def reset_metrics(self):
            super().reset_metrics()
            for metric in self._running_meta_losses():
                metric.reset_state()

        def _step(self, step, state, data):
            """A step whose logs have what the layers counted in it."""
            self._in_step = True
            try:
                logs, state = step(state, data)
            finally:
                self._in_step = False
            weights = list(zip(self.non_trainable_variables, state[1], strict=True))
            with keras.StatelessScope(state_mapping=weights):
                shown = {metric.name: metric.result() for metric in self._running_meta_losses()}
            return {**logs, **shown}, state

        def _running_meta_losses(self):
            layers = self._flatten_layers(include_self=False)
            return [RunningMetaLoss(layer) for layer in layers if isinstance(layer, MetaLoss)]
