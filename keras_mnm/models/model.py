import copy
import functools
import inspect

import keras

from keras_mnm import backend
from keras_mnm.layers.meta_loss import RunningTotal

_FIT, _EVALUATE, _PREDICT = map(
    inspect.signature, (keras.Model.fit, keras.Model.evaluate, keras.Model.predict)
)


@keras.saving.register_keras_serializable(package="keras_mnm")
class Model(keras.Model):
    """A functional `keras.Model` that makes up for differences between backends and runtimes.

    - It shows `meta_loss` in `fit` and `evaluate` on JAX, too, where the logs of a step cannot see
      the layers' weights, so the step itself has to report them. Of several memories it shows the
      sum, where `keras.Model` shows the last one's.
    - Where inputs have an unknown length, as `keras.Input((None, 8))`, a step is compiled for each
      length on TensorFlow, too, so that the layers run their fused form; Keras would trace it once
      with the length unknown. `fit`, `evaluate` and `predict` take a `PyDataset` with batches of
      several lengths, made by its `workers` as threads. (Not with `steps_per_execution` above 1,
      nor over several devices.)
    - `export` writes the layers' fused form in operations that ONNX knows, too.

    Args:
        inputs: One `keras.Input`, or a nest of them.
        outputs: What the layers make of them. A model with a `call` of its own is a `keras.Model`.
        name: The model's name. Defaults to `None`, one by the class.
        **kwargs: Arguments of `keras.Model` (`trainable`).

    Example:

    >>> import keras, keras_mnm
    >>> inputs = keras.Input((20, 8))
    >>> model = keras_mnm.Model(inputs, keras_mnm.MNM(16)(inputs))
    """

    _in_step = False

    # `keras.Model.__new__` turns a class into a functional one when it first gets inputs and
    # outputs; as both are required here, there is no other kind of it.
    def __init__(self, inputs, outputs, name=None, **kwargs):
        super().__init__(inputs, outputs, name=name, **kwargs)

    def get_metrics_result(self):
        return {**super().get_metrics_result(), **({} if self._in_step else self._meta_loss())}

    def _meta_loss(self):
        """The log `meta_loss`, the sum of those of all memories; empty where there is none."""
        results = [total.result() for total in self._running_totals()]
        return {"meta_loss": sum(results)} if results else {}

    def _running_totals(self):
        return [weight for weight in self.weights if isinstance(weight, RunningTotal)]

    if backend.TRACED_STEP_HIDES_STATE:

        def train_step(self, state, data):
            return self._step(super().train_step, state, data)

        def test_step(self, state, data):
            return self._step(super().test_step, state, data)

        def reset_metrics(self):
            super().reset_metrics()
            for total in self._running_totals():
                total.reset()

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
            return super().fit(**self._of_any_shape(options, "x", "validation_data"))

        @functools.wraps(keras.Model.evaluate)
        def evaluate(self, *args, **kwargs):
            options = _EVALUATE.bind(self, *args, **kwargs).arguments
            return super().evaluate(**self._of_any_shape(options, None, "x"))

        @functools.wraps(keras.Model.predict)
        def predict(self, *args, **kwargs):
            options = _PREDICT.bind(self, *args, **kwargs).arguments
            return super().predict(**self._of_any_shape(options, None, "x"))

        def make_train_function(self, force=False):
            if not self._compiles_each_shape("train", force):
                super().make_train_function(force)

        def make_test_function(self, force=False):
            if not self._compiles_each_shape("test", force):
                super().make_test_function(force)

        def make_predict_function(self, force=False):
            if not self._compiles_each_shape("predict", force):
                super().make_predict_function(force)

        def _compiles_each_shape(self, name, force):
            """Sets `train_function` and its like, and tells whether it did."""
            if self.run_eagerly or not self._has_open_shapes():
                return False
            if force or getattr(self, f"{name}_function") is None:
                step = backend.for_each_shape(getattr(self, f"{name}_step"), self.jit_compile)
                # Keras hands an iterator to the first two, and a list of one batch to `predict`.
                function = lambda batches: step(next(iter(batches)))
                setattr(self, f"{name}_function", function)
            return True

        def _of_any_shape(self, options, train, test):
            """Options of `fit` and its like whose `PyDataset`s may have batches of any shape.

            `train` and `test` name the options with the data.
            """
            options = {**options, **options.get("kwargs", {})}
            options.pop("self")
            options.pop("kwargs", None)
            found = {}
            for name in (train, test):
                data = options.get(name)
                if self._has_open_shapes() and isinstance(data, keras.utils.PyDataset):
                    shuffle = name == train and options.get("shuffle", True)
                    options[name] = backend.batches_of_any_shape(data, shuffle)
                    found[name] = data
            if found:
                callbacks = options.get("callbacks") or ()
                epochs = _Epochs(found.get(train), found.get(test))
                if isinstance(callbacks, keras.callbacks.CallbackList):
                    options["callbacks"] = copy.copy(callbacks)
                    options["callbacks"].callbacks = [epochs, *callbacks.callbacks]
                else:
                    options["callbacks"] = [epochs, *keras.tree.flatten(callbacks)]
            if train in found:
                if options.get("class_weight"):  # of which Keras asks all up to the last label then
                    last = self.output_shape[-1] - 1
                    options["class_weight"] = {last: 1.0, **options["class_weight"]}
                options["shuffle"] = False  # they are already, and Keras would warn that it cannot
            return options

        def _has_open_shapes(self):
            return (
                any(None in tensor.shape[1:] for tensor in getattr(self, "inputs", None) or ())
                and self.steps_per_execution == 1
                and self.distribute_strategy.num_replicas_in_sync == 1
            )


class _Epochs(keras.callbacks.Callback):
    """Tells `PyDataset`s when an epoch begins and ends, of which Keras has the batches alone."""

    def __init__(self, train, test):
        super().__init__()
        self._train = keras.utils.PyDataset() if train is None else train
        self._test = keras.utils.PyDataset() if test is None else test

    def on_epoch_begin(self, epoch, logs=None):
        self._train.on_epoch_begin()

    def on_epoch_end(self, epoch, logs=None):
        self._train.on_epoch_end()

    def on_test_begin(self, logs=None):
        self._test.on_epoch_begin()

    def on_test_end(self, logs=None):
        self._test.on_epoch_end()

    on_predict_begin, on_predict_end = on_test_begin, on_test_end
