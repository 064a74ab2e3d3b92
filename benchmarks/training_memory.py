"""Peak memory of training at T=441, each implementation in a process of its own.

From each peak is taken that of the same process at T=2, which has the libraries, the compiler and
the model, but hardly a sequence. Last, one long sequence: B=1, T=10,000.
"""

import importlib.util

import own_process
from implementations import Shape
from markdown_table import markdown_table

NAMES = ("MNM-p fused", "MNM-p plain", "MNM-g fused", "MNM-g plain", "MNM-p PyTorch loop")
PAIRS = (("MNM-p fused", "MNM-p plain"), ("MNM-g fused", "MNM-g plain"))


def measure(quick):
    length = 20 if quick else 441
    by_name = {}
    for name in NAMES[:2] if quick else NAMES:
        if "PyTorch" in name and importlib.util.find_spec("torch") is None:
            print(f"{name} is skipped: torch is not installed")
            continue
        peak = own_process.measure(name, Shape(length=length))["peak_mb"]
        baseline = own_process.measure(name, Shape(length=2))["peak_mb"]
        by_name[name] = {
            "peak_mb": peak,
            "baseline_mb": baseline,
            "training_mb": peak - baseline,
        }
    results = {
        "length": length,
        "by_implementation": by_name,
        "times_less": {
            f"{a} / {b}": by_name[b]["training_mb"] / by_name[a]["training_mb"]
            for a, b in PAIRS
            if a in by_name
        },
    }
    if not quick:
        long = Shape(batch=1, length=10_000)
        results["B=1, T=10,000"] = {
            name: own_process.measure(name, long) for name in ("MNM-p fused", "MNM-g fused")
        }
    return results


def table(results):
    kinds = "peak", "baseline", "training"
    columns = ["implementation", *(f"{kind}, MB" for kind in kinds)]
    rows = [
        [name, *(f"{row[f'{kind}_mb']:.0f}" for kind in kinds)]
        for name, row in results["by_implementation"].items()
    ]
    lines = [f"Training at B=32, T={results['length']}", "", markdown_table(columns, rows), ""]
    lines += [f"- {name}: {x:.1f} times less" for name, x in results["times_less"].items()]
    for name, row in results.get("B=1, T=10,000", {}).items():
        lines.append(
            f"- {name} at B=1, T=10,000: the whole process {row['peak_mb']:.0f} MB, "
            f"{row['seconds']:.1f} s a step"
        )
    return "\n".join(lines)
