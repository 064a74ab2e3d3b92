"""Runs a benchmark: the competitors in turn, medians, ratios, and a JSON file of results.

python benchmarks/run.py train_step
python benchmarks/run.py train_step --backend jax --quick
"""

import contextlib
import importlib
import importlib.metadata
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))

from command_line import (  # noqa: E402
    Parser,
    add_backend_option,
    check_writable,
    positive_int,
    use_backend,
)

PAUSE = 0.3
"""Seconds."""
REPEATS = 7
BENCHMARKS = (
    "train_step",
    "babi_shape",
    "task_step",
    "training_memory",
    "sequence_length",
    "streaming",
    "exactness",
    "half_precision",
    "time_profile",
    "input_pipeline",
    "babi_batches",
    "maze_update",
    "maze_bounds",
    "sort_errors",
    "write_rates",
    "exchanged_rule",
    "babi_stories",
    "memory_defaults",
)
"""A module each, with `cases` and `RATIOS` to be timed in turn, or `measure` and `table`."""


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    add_backend_option(parser, "tensorflow", "jax", "torch")
    parser.add_argument("--quick", action="store_true", help="the smallest case; writes no file")
    parser.add_argument(
        "--repeats", type=positive_int, help=f"timed steps of each (default: {REPEATS})"
    )
    parser.add_argument(
        "--only", help="only implementations whose name has this text; writes no file"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=HERE / "results",
        help="folder of the results, in place of those of that name",
    )
    args = parser.parse_args()
    use_backend(parser, args.backend)
    if not (args.quick or args.only):
        check_writable(parser, args.output)
    with parser.answering():
        run(importlib.import_module(args.name), args, parser)


def run(benchmark, args, parser):
    """Measures, prints a table, and writes the results."""
    import trainer  # noqa: F401  # notes the commit, before others are made

    if hasattr(benchmark, "cases"):
        results = time_cases(benchmark, args)
        text = timing_table(results)
    else:
        if args.only or args.repeats:
            parser.error(f"{args.name} times no implementations; leave out --only and --repeats")
        results = benchmark.measure(args.quick)
        text = benchmark.table(results)
    print(text)
    if not args.quick and not args.only:
        path = args.output / f"{args.name}-{args.backend}.json"
        save(path, results, getattr(benchmark, "SEEDS", getattr(benchmark, "SEED", 0)))
        if hasattr(benchmark, "draw"):
            benchmark.draw(results, path.with_suffix(".png"))


def time_cases(benchmark, args):
    groups, known = {}, {}
    for group, competitors in benchmark.cases(args.quick):
        chosen = {name: make for name, make in competitors.items() if (args.only or "") in name}
        known.update(competitors)
        if chosen:
            groups[group] = time_in_turn(group, chosen, args.repeats or REPEATS)
            groups[group]["ratios"] = ratios(groups[group]["seconds"], benchmark.RATIOS)
    if not groups:
        raise SystemExit(f"--only {args.only!r} fits none of {', '.join(known)}.")
    return groups


def time_in_turn(group, competitors, repeats):
    """Compile time and the median of `repeats` steps, one step of each competitor at a time.

    Before each timed step come a pause, in which the threads of the competitor before come to
    rest, and a step that is not timed, which fills the caches.
    """
    steps, first, times, skipped = {}, {}, {}, {}
    for name, make in competitors.items():
        print(f"{group}: preparing {name}", file=sys.stderr, flush=True)
        try:
            step = make()
        except ModuleNotFoundError as error:
            skipped[name] = f"{error.name} is not installed"
            continue
        first[name] = seconds_of(step)
        steps[name], times[name] = step, []
    for _ in range(repeats):
        for name, step in steps.items():
            time.sleep(PAUSE)
            step()
            times[name].append(seconds_of(step))
    return {
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "all_seconds": times,
        "first_step_seconds": first,
        "skipped": skipped,
    }


def seconds_of(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def ratios(seconds, pairs):
    """How many times faster A is than B, for the pairs that were measured."""
    return {
        f"{a} / {b}": seconds[b] / seconds[a] for a, b in pairs if a in seconds and b in seconds
    }


def timing_table(groups):
    from markdown_table import markdown_table

    lines = []
    for group, result in groups.items():
        rows = [
            [name, f"{1e3 * seconds:.1f}", f"{result['first_step_seconds'][name]:.1f}"]
            for name, seconds in result["seconds"].items()
        ]
        rows += [[name, f"skipped: {why}", ""] for name, why in result["skipped"].items()]
        table = markdown_table(["implementation", "ms a step", "first step, s"], rows)
        lines += ["", f"### {group}", "", table, ""]
        lines += [f"- {name}: {x:.2f} times as fast" for name, x in result["ratios"].items()]
    return "\n".join(lines)


def save(path, results, seed):
    """Writes results with what they were made by."""
    from trainer import origin

    from keras_mnm.files import write_json

    content = {**origin(), "seed": seed, "results": results}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # one of the competitors
        content["versions"]["torch"] = importlib.metadata.version("torch")
    write_json(path, content)
    print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
