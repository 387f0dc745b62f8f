"""A report as Markdown."""

from collections.abc import Iterable, Mapping

from service.evaluation import Figure
from service.training.intervals import METRICS
from service.training.report import Report
from service.training.slices import Slice

TITLES = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss", "ece": "ECE", "ndcg": "NDCG@10"}
LEGEND = """\
GAUC and NDCG@10 are those of each user's own test rows, over users with both classes; GAUC is weighted by rows. ECE is
the mean gap between probability and click rate over ten bins of equally many rows; drawing users adds noise to it, so
that where it is small its interval lies too high. Intervals are percentiles of a bootstrap that draws users with
replacement."""


def to_markdown(report: Report) -> str:
    """The page that is written beside the pictures."""
    found = report.evaluation
    lines = [
        f"# {report.name}, version {report.version}",
        "",
        f"Evaluated {found.created} on the test rows of {found.data}: {found.rows:,} rows of {found.users:,} users,",
        f"click rate {found.clicks:.4f}, seed {found.seed}. Intervals hold {found.level:.0%}; {found.draws:,} draws.",
        "",
        *_table(["", *TITLES.values()], _scorers({f"version {report.version}": found.figures, **report.baselines})),
        "",
        *LEGEND.splitlines(),
        *_negatives(found.negatives),
        *_rela_impr(report),
        "",
        "## Calibration",
        "",
        "![reliability diagram](reliability.png)",
        "",
        *_table(
            ["rows", "mean probability", "click rate"],
            ([f"{each.rows:,}", f"{each.predicted:.4f}", f"{each.clicks:.4f}"] for each in report.reliability),
        ),
        "",
        "## Slices",
        "",
        "![AUC by slice](slices.png)",
        *_slices("ids in the history", report.by_history),
        *_slices("positives of the item in training", report.by_popularity),
        "",
    ]
    return "\n".join(lines)


def describe(figure: Figure | None) -> str:
    """A figure and its interval, or that there is none."""
    return "-" if figure is None else f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"


def _negatives(drawn: int) -> list[str]:
    if not drawn:
        return []
    return [
        "",
        f"Negatives were drawn, {drawn} for each positive: logloss and calibration are about this click rate, which is",
        "not that of real traffic; a version whose probabilities were corrected to that looks badly calibrated here.",
    ]


def _rela_impr(report: Report) -> list[str]:
    change = report.evaluation.rela_impr
    if change is None:
        return []
    return ["", f"RelaImpr over mean pooling (AUC {report.pooling_auc:.4f} in training): {change:+.2%}."]


def _scorers(figures: Mapping[str, Mapping[str, Figure]]) -> Iterable[list[str]]:
    for name, each in figures.items():
        yield [name, *(describe(each.get(metric)) for metric in METRICS)]


def _slices(title: str, found: list[Slice]) -> list[str]:
    names = ("auc", "gauc", "logloss")
    rows = (
        [each.name, f"{each.rows:,}", f"{each.users:,}", f"{each.clicks:.4f}", f"{each.predicted:.4f}"]
        + [describe(each.figures.get(name)) for name in names]
        for each in found
    )
    header = [title, "rows", "users", "click rate", "mean probability", *(TITLES[name] for name in names)]
    return ["", *_table(header, rows)]


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]
