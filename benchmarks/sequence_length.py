"""Time and memory of a training step against the length of the sequence (the paper's Fig. 3)."""

import own_process
from implementations import Shape
from markdown_table import markdown_table

NAMES = ("MNM-p fused", "MNM-g fused", "LSTM+SALU", "Keras LSTM")
LENGTHS = (100, 300, 1000, 3000, 10_000)
SHORTER_ONLY = {"LSTM+SALU": 3000}
"""Its time grows with the square of the length."""
BATCH = 4


def measure(quick):
    results = {"batch": BATCH, "curves": {}}
    for name in NAMES[:1] if quick else NAMES:
        lengths = LENGTHS[:2] if quick else LENGTHS
        lengths = [n for n in lengths if n <= SHORTER_ONLY.get(name, n)]
        points = [own_process.measure(name, Shape(BATCH, length)) for length in lengths]
        results["curves"][name] = {"length": lengths} | {
            key: [point[key] for point in points] for key in points[0]
        }
    return results


def table(results):
    rows = []
    for name, curve in results["curves"].items():
        for length, seconds, peak in zip(
            curve["length"], curve["seconds"], curve["peak_mb"], strict=True
        ):
            rows.append([name, f"{length:,}", f"{1e3 * seconds / length:.3f}", f"{peak:.0f}"])
    columns = ["implementation", "T", "ms a step of time", "peak of the process, MB"]
    return f"A training step at B={results['batch']}\n\n{markdown_table(columns, rows)}"


def draw(results, path):
    from matplotlib.figure import Figure

    from keras_mnm.files import save_figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(f"A training step against the length of the sequence, batch {results['batch']}")
    time, memory = figure.subplots(1, 2)
    for name, curve in results["curves"].items():
        style = {"marker": "o", "markersize": 3, "label": name}
        time.plot(curve["length"], curve["seconds"], **style)
        memory.plot(curve["length"], [mb / 1000 for mb in curve["peak_mb"]], **style)
    time.set(yscale="log", ylabel="seconds a training step")
    memory.set(ylim=(0, None), ylabel="peak memory of the process, GB")
    for axis in (time, memory):
        axis.set(xscale="log", xlabel="time steps T")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    save_figure(figure, path, dpi=130)
