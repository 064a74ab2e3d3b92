"""Returns and losses of advantage actor-critic, as pure functions."""

from typing import NamedTuple

import keras
from keras import ops

from keras_mnm import backend
from keras_mnm.validation import number


class A2CLosses(NamedTuple):
    """The parts of the loss, each a mean over samples and steps, without its weight."""

    policy: object
    """`-log π(a) (R - V)`, whose gradient is that of the policy."""
    value: object
    """`(R - V)²`."""
    concentration: object
    """`Σ_a π(a)²`, which is least where all actions are as likely."""


def discounted_returns(rewards, discount, final_value=None, discounts=None):
    """`R_t = r_t + γ d_t R_{t+1}`, where `R_T` is the value after the last step.

    Args:
        rewards: `[B, T]`, what each step earned.
        discount: γ, a number from 0 to 1.
        final_value: `[B]`, the value of what comes after the last step. Defaults to zeros, the end
            of the episode.
        discounts: `[B, T]`, `d_t`: 0 at a step that ends an episode, else 1. Defaults to ones.

    Returns:
        `[B, T]`.

    Example:

    >>> import keras
    >>> from keras_mnm.rl import discounted_returns
    >>> keras.ops.convert_to_numpy(discounted_returns([[0.0, 0.0, 8.0]], 0.5)).tolist()
    [[2.0, 4.0, 8.0]]
    """
    number("discount", discount, high=1.0)
    rewards = ops.convert_to_tensor(rewards)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(rewards.dtype)):
        rewards = ops.cast(rewards, keras.config.floatx())
    discounts = ops.ones_like(rewards) if discounts is None else ops.cast(discounts, rewards.dtype)
    if final_value is None:
        final_value = ops.zeros_like(rewards[:, 0])
    final_value = ops.cast(final_value, rewards.dtype)

    steps = (ops.transpose(rewards), ops.transpose(discount * discounts))
    _, returns = backend.scan(_return, final_value, steps, rewards.shape[1], reverse=True)
    return ops.transpose(returns)


def _return(after, now):
    # Not within the function that scans: JAX compiles a loop once for each step that it is given.
    reward, factor = now
    value = reward + factor * after
    return value, value


def log_probabilities(logits, actions):
    """`log π(a)` of the actions taken, in the shape of `actions`.

    A ValueError where an action is none of the logits' (unless compiled, when it cannot be read).
    """
    logits, actions = ops.convert_to_tensor(logits), ops.convert_to_tensor(actions)
    if backend.is_concrete(actions):
        low, high = int(ops.min(actions)), int(ops.max(actions))
        if low < 0 or high >= logits.shape[-1]:
            raise ValueError(
                f"`actions` must lie from 0 to {logits.shape[-1] - 1}, for there are "
                f"{logits.shape[-1]} logits a step. Received actions from {low} to {high}."
            )
    chosen = ops.one_hot(actions, logits.shape[-1], dtype="bool")
    # Not their product: an action ruled out by a logit of -inf would make it NaN.
    return ops.sum(ops.where(chosen, ops.log_softmax(logits), 0.0), axis=-1)


def a2c_losses(logits, values, actions, returns, mask=None, sample_weight=None):
    """The losses of advantage actor-critic for whole sequences.

    The last of them takes the place of an entropy bonus, after Miconi et al. 2018.

    Args:
        logits: `[B, T, A]`, of the policy.
        values: `[B, T]`, of the critic.
        actions: Integers `[B, T]`.
        returns: `[B, T]`.
        mask: Boolean `[B, T]`, the steps that the means are taken over. Defaults to all.
        sample_weight: `[B, T]`, what the losses of each step are multiplied by, as in Keras's
            losses. Defaults to ones.

    Returns:
        `A2CLosses` of three scalars.

    Example:

    >>> from keras_mnm.rl import a2c_losses
    >>> losses = a2c_losses([[[0.0, 0.0]]], [[1.0]], [[0]], [[3.0]])
    >>> [round(float(loss), 3) for loss in losses]
    [1.386, 4.0, 0.5]
    """
    logits, values = ops.convert_to_tensor(logits), ops.convert_to_tensor(values)
    returns = ops.cast(returns, values.dtype)
    if mask is None:
        weights = ops.ones_like(values)
    else:
        mask = ops.cast(mask, "bool")
        weights = ops.cast(mask, values.dtype)
        # Whatever pads them: NaN times a weight of 0 is NaN.
        actions = ops.where(mask, actions, 0)
        values, returns = (ops.where(mask, x, 0.0) for x in (values, returns))
        logits = ops.where(mask[..., None], logits, 0.0)
    count = ops.maximum(ops.sum(weights), 1.0)  # without any step the loss is zero, not NaN
    if sample_weight is not None:
        sample_weight = ops.cast(sample_weight, values.dtype)
        weights = ops.where(weights > 0.0, sample_weight, 0.0)
    advantage = returns - values
    policy = -log_probabilities(logits, actions) * ops.stop_gradient(advantage)
    concentration = ops.sum(ops.square(ops.softmax(logits)), axis=-1)
    parts = policy, ops.square(advantage), concentration
    return A2CLosses(*(ops.sum(weights * part) / count for part in parts))
