"""The equations of Metalearned Neural Memory as pure functions of tensors.

Shapes: `B` batch, `H` heads, `D` memory units, `L` memory layers. Row vectors: an activation
`z` is `[B, H, D]`, a memory layer `M` is `[B, D, D]`, and the paper's `M z` reads `z @ M` here.
The fast weights φ of one sample are the list of its `L` matrices. Equation numbers are those of
Munkhdalai et al., "Metalearned Neural Memory", NeurIPS 2019.
"""

from keras import ops

from keras_mnm import backend


def interaction_vectors(projection, num_heads):
    """Eq. 1: split `tanh(W h + b)` into read keys, write keys, target values and the rate vector.

    Args:
        projection: `[B, (3 H + 1) D]`.
        num_heads: `H`.

    Returns:
        Read keys, write keys and target values, each `[B, H, D]`, and the rate vector `[B, D]`.
    """
    units = projection.shape[-1] // (3 * num_heads + 1)
    vectors = ops.reshape(ops.tanh(projection), (-1, 3 * num_heads + 1, units))
    read_keys = vectors[:, :num_heads]
    write_keys = vectors[:, num_heads : 2 * num_heads]
    values = vectors[:, 2 * num_heads : 3 * num_heads]
    return read_keys, write_keys, values, vectors[:, -1]


def memory_activations(keys, weights, activation, output_activation):
    """The memory function of §3.2: `z^l = σ(M^l z^{l-1})` from `z^0 = k`.

    Args:
        keys: `[B, H, D]`.
        weights: the `L` matrices, each `[B, D, D]`.
        activation: σ of all layers but the last.
        output_activation: σ of the last layer.

    Returns:
        `[z^0, ..., z^L]`, each `[B, H, D]`. The last one holds the read-out values `f_φ(k)`.
    """
    activations = [keys]
    for layer, matrix in enumerate(weights, start=1):
        sigma = output_activation if layer == len(weights) else activation
        activations.append(sigma(ops.matmul(activations[-1], matrix)))
    return activations


def squared_error(values, targets):
    """`‖v̂ - v‖²`, as a mean over heads and units (Eqs. 2 and 5): `[B, H, D]` to `[B]`."""
    return ops.mean(ops.square(values - targets), axis=(-2, -1))


def meta_objective(meta):
    """The meta objective (Eq. 5) of a batch: for each sequence, its mean error over its steps.

    Args:
        meta: `[B, 2]`, the sum of a sequence's errors and the number of its steps.

    Returns:
        The sum over the sequences, and the number of those that have any step: two scalars.
    """
    errors, steps = meta[:, 0], meta[:, 1]
    present = ops.cast(steps > 0.0, meta.dtype)
    return ops.sum(errors / ops.maximum(steps, 1.0)), ops.sum(present)


def default_step_size(num_heads, units):
    """η = 2 / (H D): a write then is a gradient step on the *mean* squared error (Eq. 9).

    With it the memory stays bounded for every rate in [0, 1]. η = 1 is Eq. 4 as printed, and
    η = 2 / H are Eqs. 2 and 3 as printed; both diverge within a few writes.
    """
    return 2.0 / (num_heads * units)


def local_change(activations, targets, rates, step_size):
    """What a local write (Eq. 4, MNM-p) takes away: `η β^l (z^l - ẑ^l) (z^{l-1})ᵀ`, over all heads.

    Args:
        activations: `[z^0, ..., z^L]` of the write keys under the memory before the write.
        targets: `[ẑ^1, ..., ẑ^L]`, what the feedback prediction functions expect of the target
            values; each `[B, H, D]`.
        rates: `[β^1, ..., β^L]`, each `[B, 1, 1]`.
        step_size: η.

    Returns:
        For each layer `[B, D, D]`, so that `M^l ← M^l - change^l`.
    """
    return [
        ops.matmul(ops.swapaxes(z_below, -1, -2), step_size * rate * (z - target))
        for rate, z_below, z, target in zip(
            rates, activations[:-1], activations[1:], targets, strict=True
        )
    ]


def gradient_change(weights, keys, values, rates, step_size, activation, output_activation):
    """What a gradient write (Eqs. 2 and 3, MNM-g) takes away: `η β ∇_φ ½ Σ ‖f_φ(k) - v‖²`.

    The gradient is taken by the backend's own transform (a nested `tf.GradientTape` on
    TensorFlow) and can be differentiated again.

    Args:
        weights: the `L` matrices, each `[B, D, D]`.
        keys: write keys, `[B, H, D]`.
        values: target values, `[B, H, D]`.
        rates: `[β^1, ..., β^L]`, each `[B, 1, 1]`.
        step_size: η.
        activation: σ of all layers but the last.
        output_activation: σ of the last layer.

    Returns:
        For each layer `[B, D, D]`, so that `M^l ← M^l - change^l`.
    """

    def objective(weights):
        recalled = memory_activations(keys, weights, activation, output_activation)[-1]
        return 0.5 * ops.sum(ops.square(recalled - values))

    gradients = backend.gradient(objective, weights)
    return [step_size * rate * gradient for rate, gradient in zip(rates, gradients, strict=True)]
