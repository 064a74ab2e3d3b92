"""The fused sequence form of MNM: a whole sequence as one function with one custom gradient.

It computes what a loop over `MNMCell` with an LSTM controller computes, to rounding, in less time
and memory (`benchmarks/results`). Five ideas make the difference:

1. *Low rank.* A write takes `kᵀ e` from a memory layer: `M_t = M_0 - Σ_s k_sᵀ e_s`, where `k_s` are
   the activations below the layer and `e_s` the scaled errors above it. Within a chunk of `C`
   steps the memory is never formed: `z M_t = z M_0 - (z Kᵀ) E`. Once a chunk, `M_0` takes up the
   sum as one product.
2. *One pass.* Under the local rule an error depends only on the layers below it, so that the write
   and the reads of a step go up through the layers together, and `M_0` is read once for both;
   their adjoints come down together, too.
3. *Nothing is stored but vectors.* The backward pass has `M_0` of each chunk and the chunk's `K`
   and `E`; the gates and interaction vectors of a chunk are computed again, all steps at once.
4. *The adjoint has low rank, too.* `dM_t = dM_C + Σ_{s>t} p_sᵀ q_s`, and the `p_s` are known
   beforehand, so that what the loop needs of `dM_C` is one product a chunk.
5. *Weights* get their gradients as one product over the steps of a chunk.

`fused` runs the chunks and the controller; `closed_loop` does where inputs depend on what came out
before; `rules` has the two write rules, forward and back; `low_rank` the memory within a chunk.
`lookup` stands by itself: it is the same kind of thing for the look-up table of `keras_mnm.SALU`.

Shapes: `T` steps in `N` chunks of `C`, `B` samples, `H` heads, `D` memory units, `L` memory layers,
`U` controller units. Factors of a chunk are `[B, C n, D]`, with the `n` rows of a step together;
what the loop over steps takes and gives is time-major, `[C, B, ...]`.
"""

from keras_mnm.sequence.closed_loop import play
from keras_mnm.sequence.fused import Spec, Weights, chunk_length, run
from keras_mnm.sequence.rules import SIGMAS

__all__ = ["SIGMAS", "Spec", "Weights", "chunk_length", "play", "run"]
