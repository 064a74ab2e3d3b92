"""A sequence whose inputs depend on what came out before: an agent in its world."""

from keras import ops, tree

from keras_mnm import backend
from keras_mnm.sequence.fused import (
    Controller,
    Sequence,
    chunk_length,
    dense,
    in_chunks,
    whole,
)


def play(observe, act, world, chance, state, weights, spec):
    """Runs a sequence step by step, and keeps what the backward pass needs.

    Afterwards `fused.run` takes the tape in place of its own forward pass: what an agent did is
    computed once, and not again to learn from it.

    Args:
        observe: A function from the world's state to the step's input, `[B, features]`.
        act: A function from the world's state, hidden state `[B, U]`, read-out `[B, D]` and the
            step's part of `chance` to the world's next state and a nest of outputs.
        world: The world's state at first, a nest of tensors.
        chance: `[T, B, n]`, what is left to chance.
        state: As in `fused.run`.
        weights: `Weights`.
        spec: `Spec`.

    Returns:
        The outputs, `[T, B, ...]`, and the tape.
    """
    steps = chance.shape[0]
    length = chunk_length(steps, spec.num_heads, state[-1].shape[-1])
    mask = in_chunks(ops.ones_like(chance[..., :1]), length)
    chance = in_chunks(chance, length)
    sequence = Sequence(spec, depth=len(state) - 3, length=length)

    def chunk(carry, parts):
        (start, error, matrices), world = carry
        chance, mask = parts

        def step(carry, parts):
            inner, world = carry
            chance, m, index = parts
            inputs = observe(world)
            features = inputs.shape[-1]
            from_x = dense(inputs, weights.gates[:features]) + weights.gates_bias
            inner, record = sequence.step(from_x, m, index, inner, matrices, weights)
            world, outputs = act(world, inner[0].h, inner[0].readout, chance)
            return (inner, world), (record, outputs)

        begin = ((start, error, sequence.unwritten(matrices)), world)
        index = ops.arange(length, dtype="int32")
        ((state, error, factors), world), (records, outputs) = backend.scan(
            step, begin, (chance, mask, index), length
        )
        matrices, kept = sequence.end_of_chunk(start, matrices, factors, records)
        return ((state, error, matrices), world), (kept, outputs)

    start = (Controller(*state[:3]), ops.zeros_like(state[0][:, 0]), list(state[3:]))
    (after, _), (chunks, outputs) = backend.scan(
        chunk, (start, world), (chance, mask), mask.shape[0]
    )

    outputs = tree.map_structure(lambda x: whole(x, steps), outputs)
    return outputs, (sequence.outputs(after, chunks), chunks)
