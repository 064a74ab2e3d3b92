import keras
from keras import ops

from keras_mnm import backend
from keras_mnm import ops as mnm_ops
from keras_mnm.validation import fits, number


@keras.saving.register_keras_serializable(package="keras_mnm")
class MetaLoss(keras.layers.Layer):
    """Adds the meta objective (Eq. 5) to the loss of the model and hands its inputs on.

    `keras_mnm.MNM` has one inside. With `keras.layers.RNN(keras_mnm.MNMCell(...))`, pass it the
    outputs and the meta state; `MNMCell` has an example. The loss is the mean, over the samples of
    the batch with at least one unmasked step, of each one's mean over its steps. `fit` and
    `evaluate` show it as `meta_loss` (on JAX for models made with `keras_mnm.Model`).

    Args:
        weight: Number ≥ 0, the weight of the meta objective in the loss. Defaults to `1.0`.
            `meta_loss` is shown without it.
        **kwargs: Arguments of `keras.layers.Layer` (`name`, `dtype`, `trainable`).

    Call arguments:
        outputs: Any tensor; returned as it is.
        meta: `[B, 2]`, the state `meta` of an `MNMCell` after the sequence: the sum of the
            objective's terms and the number of steps, both from zeros at the sequence's start. Take
            it by its name, as `cell.unpack_state(states).meta`; it need not be the last state.

    Returns:
        `outputs`.
    """

    def __init__(self, weight=1.0, **kwargs):
        # The sum and the count in `meta` must not be rounded to half precision.
        super().__init__(autocast=False, **kwargs)
        self.weight = number("weight", weight)
        self.supports_masking = True

    def build(self, outputs_shape=None, meta_shape=None):
        if meta_shape is not None and not fits(meta_shape, (None, 2)):
            raise ValueError(
                "`meta` must be the state of that name of an MNMCell, [B, 2]: "
                "`cell.unpack_state(states).meta`. Received a tensor of shape "
                f"{tuple(meta_shape)}."
            )
        self.running_total = RunningTotal()

    def call(self, outputs, meta):
        meta = ops.cast(meta, keras.backend.result_type(self.compute_dtype, "float32"))
        total, count = mnm_ops.meta_objective(meta)
        objective = self.weight * total / ops.maximum(count, 1.0)
        # As the task's loss: TensorFlow adds no two types.
        self.add_loss(ops.cast(objective, keras.config.floatx()))
        self.running_total.add(total, count)
        return outputs

    def compute_output_shape(self, outputs_shape, meta_shape=None):
        return outputs_shape

    def compute_output_spec(self, outputs, meta):
        return keras.KerasTensor(outputs.shape, outputs.dtype)

    @property
    def metrics(self):
        if backend.TRACED_STEP_HIDES_STATE or not self.built:
            return super().metrics
        return [*super().metrics, RunningMetaLoss(self)]

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


class RunningTotal(keras.Variable):
    """The sum of the meta objective and the number of samples since the last reset."""

    def __init__(self):
        # As in Keras's metrics, each replica of a `tf.distribute` strategy counts for itself, and
        # the counts are added up when they are read; `add_weight` does not offer that.
        super().__init__(
            "zeros",
            shape=(2,),
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="sum",
            synchronization="on_read",
            name="running_total",
        )

    def add(self, total, samples):
        """Adds those of a batch."""
        batch = ops.stop_gradient(ops.stack([total, samples]))
        self.assign_add(ops.cast(batch, "float32"))

    def result(self):
        """The mean over the samples, 0 where there are none."""
        total, samples = ops.unstack(self.value)
        return total / ops.maximum(samples, 1.0)

    def reset(self):
        self.assign([0.0, 0.0])


class RunningMetaLoss(keras.metrics.Metric):
    """Shows the mean that the running total of a `MetaLoss` layer has.

    A metric that is updated inside a layer's call is lost on JAX and cannot be exported; the
    layer's own weight is neither, so the metric reads that.
    """

    def __init__(self, layer):
        super().__init__(name="meta_loss")
        self._layer = layer

    def update_state(self, *args, **kwargs):
        """The layer has counted the batch already."""

    def result(self):
        return self._layer.running_total.result()

    def reset_state(self):
        self._layer.running_total.reset()
