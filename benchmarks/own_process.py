"""Trains one implementation for a few steps in a process of its own, for its peak memory.

python benchmarks/own_process.py "MNM-p fused" --length 441
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

STEPS = 3


def measure(name, shape):
    """Runs this file: a dict with `peak_mb` and the median `seconds` of a step after the first."""
    words = [f"--{key}={value}" for key, value in shape._asdict().items()]
    command = [sys.executable, str(pathlib.Path(__file__)), name, *words]
    print("measuring", name, *words, file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} {shape} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    from implementations import IMPLEMENTATIONS, Shape

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=IMPLEMENTATIONS)
    for key, default in Shape()._asdict().items():
        parser.add_argument(f"--{key}", type=int, default=default)
    args = vars(parser.parse_args())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    step = IMPLEMENTATIONS[args.pop("name")](Shape(**args))
    step()
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mb": peak, "seconds": statistics.median(seconds)}))


if __name__ == "__main__":
    main()
