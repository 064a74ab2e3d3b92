"""Where a training step of the fused layer spends its time, by kind of kernel.

Measured with the profiler of TensorFlow, the one backend it runs on. It slows a step down, so that
the shares count and not the times. Kernels are told apart by XLA's text of the compiled program.
"""

import collections
import os
import pathlib
import re
import tempfile

from markdown_table import markdown_table

LENGTHS, STEPS = (100, 441), 3
NAMES = ("MNM-p fused", "MNM-g fused")


def measure(quick):
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        raise SystemExit("time_profile runs on TensorFlow alone; leave out --backend.")
    dump = tempfile.TemporaryDirectory()
    # XLA reads its flags when TensorFlow starts.
    flags = [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_dump_to={dump.name}",
        "--xla_dump_hlo_as_text",
    ]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    from implementations import IMPLEMENTATIONS, Shape

    results = {}
    for name in NAMES[:1] if quick else NAMES:
        for length in (20,) if quick else LENGTHS:
            shape = Shape(length=length)
            for path in pathlib.Path(dump.name).iterdir():
                path.unlink()
            step = IMPLEMENTATIONS[name](shape)
            step()
            texts = pathlib.Path(dump.name).glob("*after_optimizations.txt")
            kinds = kinds_of_kernels(max((path.read_text() for path in texts), key=len), shape)
            results[f"{name}, T={length}"] = profile(step, kinds)
    dump.cleanup()
    return results


def kinds_of_kernels(text, shape):
    """A dict from a kernel's name to what it is for, by its operation and its operands' shapes."""
    found = re.findall(r"^\s+(?:ROOT )?%([\w.-]+) = (\S+) ([\w-]+)\((.*)", text, re.MULTILINE)
    shapes = {name: re.match(r"\w+\[([\d,]*)\]", kind) for name, kind, _, _ in found}
    shapes = {name: tuple(match[1].split(",")) for name, match in shapes.items() if match}
    memory = tuple(map(str, (shape.batch, shape.memory_units, shape.memory_units)))
    kinds = {}
    for name, _, operation, rest in found:
        operands = [shapes.get(operand, ()) for operand in re.findall(r"%([\w.-]+)", rest)[:2]]
        if operation == "dot":
            if max(map(len, operands)) < 3:
                kinds[name] = "dense products: controller, interaction vectors, feedback"
            elif memory in operands:
                kinds[name] = "products with the memory or its adjoint"
            elif shapes[name] == memory:
                kinds[name] = "sums of outer products, once a chunk"
            else:
                kinds[name] = "low-rank sums within a chunk"
        elif operation in ("fusion", "copy", "concatenate", "transpose"):
            whole = shapes.get(name) == memory
            kinds[name] = (
                "memories copied, transposed or added" if whole else "all else that is element-wise"
            )
    return kinds


def profile(step, kinds):
    """Milliseconds a step by kind of kernel, and the calls."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    step()
    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(
            host_tracer_level=3, python_tracer_level=0
        )
        with tf.profiler.experimental.Profile(folder, options):
            for _ in range(STEPS):
                step()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(pathlib.Path(folder).rglob("*.xplane.pb")).read_bytes())
    milliseconds, calls = collections.Counter(), collections.Counter()
    for plane in space.planes:
        names = {key: value.name.split("#")[0] for key, value in plane.event_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            kind = kinds.get(names[event.metadata_id])
            if kind:
                milliseconds[kind] += event.duration_ps / 1e9 / STEPS
                calls[kind] += 1 / STEPS
    return {
        kind: {"ms": time, "calls": round(calls[kind])} for kind, time in milliseconds.most_common()
    }


def table(results):
    tables = []
    for name, kinds in results.items():
        total = sum(row["ms"] for row in kinds.values())
        rows = [
            [kind, f"{row['ms'] / total:.0%}", f"{row['calls']:,}"] for kind, row in kinds.items()
        ]
        columns = ["kernels", "share of the time", "calls a step"]
        tables.append(f"\n### {name}\n\n{markdown_table(columns, rows)}")
    return "\n".join(tables)
