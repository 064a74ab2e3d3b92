"""Everything that differs between TensorFlow, JAX and torch lives here, in one module for each.

- `gradient(function, arguments)`: the gradient of a scalar function, differentiable again.
- `value_and_gradient(function, arguments)`: what a function returns, `(value, more)`, and the
  gradient of the value.
- `compile(function)`: the function compiled by XLA, for nests of tensors (torch: as it is).
- `compiled_step(optimizer, variables)`: a function of gradients that takes the optimizer's step,
  compiled likewise.
- `custom_gradient(forward, backward)`: a function of tensors with a derivative of its own.
  `forward(*arguments)` returns a nest of outputs and a nest of residuals;
  `backward(residuals, cotangents)` returns one cotangent for each argument. To differentiate that
  is an error on TensorFlow and torch, and to ask for forward mode everywhere.
- `traced_once(function)`: the function of nests of tensors; called eagerly on TensorFlow and JAX,
  as a graph that is traced once for each shape.
- `scan(step, carry, inputs, length, reverse=False)`: a loop over the first axis of `inputs`;
  `step(carry, input)` returns the new carry and an output. All are nests of tensors.
- `slice_update(inputs, start, updates)`: `keras.ops.slice_update` along the second axis,
  differentiable everywhere.
- `put(inputs, start, updates)`: the same where nothing is differentiated.
- `no_gradient(function)`: the function, of which torch records nothing for a gradient.
- `portable_ops()`: a context in which what is traced has only operations that other runtimes know.
- `is_concrete(x)`: whether the numbers in `x` can be read now (no tracing under way).
- `accelerator()`: the name of the GPU or the like that new tensors are on, or None.
- `ONE_TRACE_FOR_ALL_SHAPES`: whether Keras traces a step once, of unknown sizes, for batches that
  differ in shape; where that is so, there are also
- `batches_of_any_shape(data, shuffle)`: a `PyDataset` as a data set for `fit`, with all sizes
  open, and
- `for_each_shape(step, jit_compile)`: a model's step, traced anew for every shape.
- `TRACED_STEP_HIDES_STATE`: whether the logs of a training step are computed without access to
  the layers' weights.
"""

import keras

NAME = keras.backend.backend()
TRACED_STEP_HIDES_STATE = NAME == "jax"
ONE_TRACE_FOR_ALL_SHAPES = NAME == "tensorflow"

if NAME == "tensorflow":
    from keras_mnm.backend.tensorflow import *
elif NAME == "jax":
    from keras_mnm.backend.jax import *
elif NAME == "torch":
    from keras_mnm.backend.torch import *
else:
    raise ImportError(
        f"keras_mnm runs on the Keras backends tensorflow, jax and torch; received {NAME!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before importing keras."
    )
