"""A report's pictures. Matplotlib is imported where it draws, so that everything else does without it."""

from pathlib import Path
from typing import TYPE_CHECKING

from service.training.report import Report
from service.training.slices import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

BLUE = "#1f6fb4"
GREY = "#888888"


def draw_reliability(report: Report, path: Path) -> None:
    """Click rate over mean probability, a point for each bin; the diagonal is perfect calibration."""
    picture = _picture(5.2, 4.8)
    axes = picture.subplots()
    predicted = [each.predicted for each in report.reliability]
    clicks = [each.clicks for each in report.reliability]
    most = min(1.0, 1.08 * max(*predicted, *clicks))
    axes.plot([0, most], [0, most], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.plot(predicted, clicks, marker="o", markersize=5, color=BLUE, label=f"version {report.version}")
    axes.set_xlim(0, most)
    axes.set_ylim(0, most)
    axes.set_xlabel("mean probability of the bin")
    axes.set_ylabel("click rate of the bin")
    axes.set_title(f"Reliability, ECE {report.evaluation.figures['ece'].value:.4f}")
    axes.legend(frameon=False)
    _finish(picture, [axes], path)


def draw_slices(report: Report, path: Path) -> None:
    """AUC with its interval, by history length and by item popularity."""
    picture = _picture(10.4, 4.0)
    panels = picture.subplots(1, 2, sharey=True)
    overall = report.evaluation.figures["auc"].value
    for axes, found, title in (
        (panels[0], report.by_history, "ids in the history"),
        (panels[1], report.by_popularity, "positives of the item in training"),
    ):
        _draw_slices(axes, found, overall)
        axes.set_xlabel(title)
    panels[0].set_ylabel(f"AUC, {report.evaluation.level:.0%} interval")
    picture.suptitle("AUC by slice; the dashed line is all rows")
    _finish(picture, list(panels), path)


def _draw_slices(axes: "Axes", found: list[Slice], overall: float) -> None:
    axes.axhline(overall, color=GREY, linestyle="--", linewidth=1)
    for place, each in enumerate(found):
        if auc := each.figures.get("auc"):
            axes.plot([place, place], [auc.low, auc.high], color=BLUE, linewidth=2)
            axes.plot(place, auc.value, marker="o", color=BLUE)
    axes.set_xticks(range(len(found)), [f"{each.name}\n{each.rows:,} rows" for each in found], fontsize=8)
    axes.set_xlim(-0.5, len(found) - 0.5)


def _picture(width: float, height: float) -> "Picture":
    from matplotlib.figure import Figure as Picture

    return Picture(figsize=(width, height), dpi=110, layout="constrained")


def _finish(picture: "Picture", panels: list["Axes"], path: Path) -> None:
    for axes in panels:
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    picture.savefig(path, metadata={"Software": None})
