"""One training step (forward, backward, Adam) of one recurrent layer, by implementation."""

import functools

from implementations import IMPLEMENTATIONS, Shape

LENGTHS = (20, 100, 441)
RATIOS = (
    ("MNM-p plain", "MNM-p PyTorch loop"),
    ("MNM-p fused", "MNM-p PyTorch loop"),
    ("MNM-p fused", "MNM-p plain"),
    ("MNM-g fused", "MNM-g plain"),
    ("MNM-p fused", "MNM-g fused"),
    ("MNM-p fused", "LSTM+SALU"),
    ("MNM-p fused", "titans-pytorch"),
    ("MNM-p fused", "dnc"),
)
"""(A, B): how many times faster A is than B."""
LONGEST = {"titans-pytorch": 100}
"""What would take minutes a step, beyond."""


def cases(quick):
    """Yields a group's name and a dict from implementation to a function that makes its step."""
    for length in LENGTHS[:1] if quick else LENGTHS:
        shape = Shape(length=length)
        yield (
            f"T={length}",
            {
                name: functools.partial(make, shape)
                for name, make in IMPLEMENTATIONS.items()
                if length <= LONGEST.get(name, length)
            },
        )
