"""Everything an evaluation tells of a version; its JSON form is the model itself."""

from datetime import UTC, datetime

import numpy as np
from pydantic import BaseModel, ConfigDict

from service.artifact import Manifest
from service.batch import Floats
from service.evaluation import Evaluation, Figure
from service.training import Samples, Split, evaluate, intervals, slices
from service.training.baselines import BASELINES
from service.training.slices import Slice


class Bin(BaseModel):
    """One point of the reliability diagram."""

    model_config = ConfigDict(frozen=True)

    rows: int
    predicted: float  # mean probability
    clicks: float  # share of the rows


class Report(BaseModel):
    """What `dinserve evaluate` writes."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    evaluation: Evaluation
    baselines: dict[str, dict[str, Figure]]  # by scorer and metric, on the same rows
    pooling_auc: float | None  # the manifest's, where it is of the same rows
    reliability: list[Bin]
    by_history: list[Slice]
    by_popularity: list[Slice]


def make_report(manifest: Manifest, split: Split, score: Floats, seed: int, draws: int = intervals.DRAWS) -> Report:
    """Judge a version's probabilities `score` (N,) of the test rows; baselines learn from the known rows.

    Raises:
        DataError: the rows are of one class, of one user, or no user has both classes.
    """
    test = split.test
    evaluate.quality(test.label, score, test.user)  # refuses what no figure can be had of
    figures = intervals.figures(test.label, score, test.user, seed, draws)
    pooling = _pooling_auc(manifest, split)
    evaluation = Evaluation(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=split.source,
        rows=len(test),
        users=len(np.unique(test.user)),
        clicks=float(test.label.mean()),
        negatives=split.negatives,
        seed=seed,
        level=intervals.LEVEL,
        draws=draws,
        figures=figures,
        rela_impr=rela_impr(figures["auc"].value, pooling),
    )
    return Report(
        name=manifest.name,
        version=manifest.version,
        evaluation=evaluation,
        baselines={
            name: intervals.figures(test.label, baseline(split.known, test), test.user, seed, draws)
            for name, baseline in BASELINES.items()
        },
        pooling_auc=pooling,
        reliability=reliability(test, score),
        by_history=slices.by_history(test, score, seed, draws),
        by_popularity=slices.by_popularity(split.known, test, score, seed, draws),
    )


def rela_impr(auc: float, base: float | None) -> float | None:
    """RelaImpr (Zhou et al., KDD 2018, formula 7): how much further from a coin's 0.5; None: there is no such base."""
    return None if base is None or base == 0.5 else (auc - 0.5) / (base - 0.5) - 1  # noqa: PLR2004 - the coin


def reliability(samples: Samples, score: Floats) -> list[Bin]:
    """Mean probability and click rate of each of the bins that ECE compares."""
    bins = evaluate.bins(score)
    rows = np.bincount(bins)
    means = np.bincount(bins, score) / rows, np.bincount(bins, samples.label) / rows
    return [Bin(rows=n, predicted=p, clicks=c) for n, p, c in zip(rows, *means, strict=True)]


def _pooling_auc(manifest: Manifest, split: Split) -> float | None:
    """The AUC of mean pooling that training left, if it is of as many rows of the same data."""
    training, pooling = manifest.training, manifest.metrics.get("pooling")
    if training is None or pooling is None or (training.data, training.test_rows) != (split.source, len(split.test)):
        return None
    return pooling.auc
