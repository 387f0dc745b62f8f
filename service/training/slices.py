"""How a scorer does on parts of the rows: short and long histories, rare and popular items."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from service.batch import Floats
from service.evaluation import Figure
from service.training import Samples, baselines, intervals

HISTORY_EDGES = (0, 1, 5, 10, 20, 50)  # a slice from each to before the next
POPULARITY_EDGES = (0, 1, 5, 20, 50)


class Slice(BaseModel):
    """One part of the rows."""

    model_config = ConfigDict(frozen=True)

    name: str  # such as "5-9"
    rows: int
    users: int
    clicks: float  # share of the rows
    predicted: float  # mean probability
    figures: dict[str, Figure]  # those that are defined there; none for a single user


def by_history(samples: Samples, score: Floats, seed: int, draws: int) -> list[Slice]:
    """Slices by how many ids the row's history has."""
    return _slices(samples, score, samples.id_stop - samples.id_start, HISTORY_EDGES, seed, draws)


def by_popularity(known: Samples, samples: Samples, score: Floats, seed: int, draws: int) -> list[Slice]:
    """Slices by how often the row's item is a positive of `known`."""
    return _slices(samples, score, baselines.positives(known, samples), POPULARITY_EDGES, seed, draws)


def _slices(
    samples: Samples, score: Floats, key: NDArray[np.number], edges: tuple[int, ...], seed: int, draws: int
) -> list[Slice]:
    names = [str(low) if low == high - 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    names.append(f"{edges[-1]}+")
    number = np.searchsorted(edges, key, "right") - 1  # (N,)
    return [
        _slice(name, samples.take(number == index), score[number == index], seed, draws)
        for index, name in enumerate(names)
        if (number == index).any()
    ]


def _slice(name: str, samples: Samples, score: Floats, seed: int, draws: int) -> Slice:
    users = len(np.unique(samples.user))
    figures = intervals.figures(samples.label, score, samples.user, seed, draws) if users > 1 else {}
    return Slice(
        name=name,
        rows=len(samples),
        users=users,
        clicks=float(samples.label.mean()),
        predicted=float(score.mean()),
        figures=figures,
    )
