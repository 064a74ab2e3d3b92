"""A training step at the sizes of the bAbI model (§4.2): 256 units and three heads."""

import functools

from implementations import IMPLEMENTATIONS, Shape

SHAPE = Shape(batch=128, length=128, units=256, memory_units=100, heads=3)
RATIOS = (
    ("MNM-p fused", "MNM-p plain"),
    ("MNM-g fused", "MNM-g plain"),
    ("MNM-p fused", "MNM-g fused"),
)


def cases(quick):
    shape = SHAPE._replace(batch=4, length=8) if quick else SHAPE
    names = {name for pair in RATIOS for name in pair}
    yield (
        f"B={shape.batch}, U=256, D=100, H=3, T={shape.length}",
        {
            name: functools.partial(make, shape)
            for name, make in IMPLEMENTATIONS.items()
            if name in names
        },
    )
