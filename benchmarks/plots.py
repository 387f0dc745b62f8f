"""Draws how inference time grows."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
COLOURS = {"native_ms": "#2a8f4f", "score_ms": "#1f6fb4", "serving_default_ms": "#c0562b"}
LABELS = {
    "native_ms": "native engine",
    "score_ms": "TensorFlow, score (blocks, folded)",
    "serving_default_ms": "TensorFlow, serving_default (a row a candidate)",
}
AXES = {
    "candidates": "candidates in the request (history {history})",
    "history": "history length, ids and tags each ({candidates} candidates)",
}


def draw_growth(name: str, found: dict[str, list[dict[str, Any]]]) -> list[Path]:
    """Write one picture for each axis; returns their paths."""
    return [_draw(name, axis, points) for axis, points in found.items()]


def _draw(name: str, axis: str, points: list[dict[str, Any]]) -> Path:
    figure, axes = plt.subplots(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    for series, colour in COLOURS.items():
        x, y = [point[axis] for point in points], [point[series] for point in points]
        axes.plot(x, y, marker="o", markersize=4, color=colour, label=LABELS[series])
    if axis == "candidates":
        axes.set_xscale("log")
        axes.set_xticks([point[axis] for point in points], [str(point[axis]) for point in points])
        axes.minorticks_off()
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(AXES[axis].format(**points[0]))
    axes.set_ylabel("time of one engine call, one core (ms)")
    axes.set_title(f"Inference time, {name}")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False)
    path = HERE / f"growth_{axis}_{name.replace(' ', '_')}.png"
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path
