import functools
import inspect

import keras

from keras_mnm import backend
from keras_mnm.layers import MetaLoss
from keras_mnm.layers.meta_loss import RunningMetaLoss

_FIT = inspect.signature(keras.Model.fit)


@keras.saving.register_keras_serializable(package="keras_mnm")
class Model(keras.Model):
    """A `keras.Model` that makes up for some differences between backends and runtimes.

    - It shows `meta_loss` in `fit` and `evaluate` on JAX, too, where the logs of a step cannot see
      the layers' weights, so the step itself has to report them. Of several memories it shows the
      sum, where `keras.Model` shows the last one's.
    - Where inputs have an unknown length, as `keras.Input((None, 8))`, a step is compiled for each
      length on TensorFlow, too, and so has the layers' fused form. Keras would trace it once, of
      unknown length. `fit` and `evaluate` take a `PyDataset` with batches of several lengths; its
      batches come in their order, whatever `shuffle` says.
      (Not with `steps_per_execution` above 1, nor over several devices.)
    - `export` writes the layers' fused form in operations that ONNX knows, too.

    Example:

    >>> import keras, keras_mnm
    >>> inputs = keras.Input((20, 8))
    >>> model = keras_mnm.Model(inputs, keras_mnm.MNM(16)(inputs))
    """

    _in_step = False

    def get_metrics_result(self):
        return {**super().get_metrics_result(), **({} if self._in_step else self._meta_loss())}

    def _meta_loss(self):
        """The log `meta_loss`, the sum of those of all memories; empty where there is none."""
        results = [metric.result() for metric in self._running_meta_losses()]
        return {"meta_loss": sum(results)} if results else {}

    def _running_meta_losses(self):
        layers = self._flatten_layers(include_self=False)
        return [RunningMetaLoss(layer) for layer in layers if isinstance(layer, MetaLoss)]

    if backend.TRACED_STEP_HIDES_STATE:

        def train_step(self, state, data):
            return self._step(super().train_step, state, data)

        def test_step(self, state, data):
            return self._step(super().test_step, state, data)

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
                return {**logs, **self._meta_loss()}, state

    def export(self, *args, **kwargs):
        with backend.portable_ops():
            return super().export(*args, **kwargs)

    if backend.ONE_TRACE_FOR_ALL_SHAPES:

        @functools.wraps(keras.Model.fit)
        def fit(self, *args, **kwargs):
            options = _FIT.bind(self, *args, **kwargs).arguments
            data, callbacks = options.get("x"), options.get("callbacks")
            options["x"] = self._of_any_shape(data)
            options["validation_data"] = self._of_any_shape(options.get("validation_data"))
            if options["x"] is not data:
                end = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: data.on_epoch_end())
                if isinstance(callbacks, keras.callbacks.CallbackList):
                    callbacks.append(end)
                else:
                    one = isinstance(callbacks, keras.callbacks.Callback)
                    options["callbacks"] = [end, *([callbacks] if one else callbacks or ())]
            return super().fit(**{name: options[name] for name in options if name != "self"})

        def evaluate(self, x=None, *args, **kwargs):
            return super().evaluate(self._of_any_shape(x), *args, **kwargs)

        def make_train_function(self, force=False):
            self._compiles_each_shape("train", force) or super().make_train_function(force)

        def make_test_function(self, force=False):
            self._compiles_each_shape("test", force) or super().make_test_function(force)

        def make_predict_function(self, force=False):
            self._compiles_each_shape("predict", force) or super().make_predict_function(force)

        def _compiles_each_shape(self, name, force):
            """Sets `train_function` and its like, and tells whether it did."""
            if not self._has_open_shapes():
                return False
            if force or getattr(self, f"{name}_function") is None:
                step = backend.for_each_shape(getattr(self, f"{name}_step"), self.jit_compile)
                # Keras hands an iterator to the first two, and a list of one batch to `predict`.
                function = lambda batches: step(next(iter(batches)))
                setattr(self, f"{name}_function", function)
            return True

        def _of_any_shape(self, data):
            varies = self._has_open_shapes() and isinstance(data, keras.utils.PyDataset)
            return backend.batches_of_any_shape(data) if varies else data

        def _has_open_shapes(self):
            return (
                any(None in tensor.shape[1:] for tensor in getattr(self, "inputs", None) or ())
                and not self.run_eagerly
                and self.steps_per_execution == 1
                and self.distribute_strategy.num_replicas_in_sync == 1
            )
