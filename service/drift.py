"""How far the scores that a version answers have moved from those it gave in training."""

import math
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveInt, model_validator

BOUNDS = tuple(round(0.05 * i, 2) for i in range(1, 21))  # upper ones, of the bins in which scores are counted
HALF_LIFE_S = 900.0  # what was answered so long ago counts half
# Fewer say nothing: of n independent scores PSI is expected to be 19/n for no other reason than chance (Yurdakul and
# Naranjo, 2020), and the candidates of one request, alike in their user, are worth far fewer independent ones.
LEAST_SCORES = 10_000
LEAST_SHARE = 1e-4  # what a bin is taken to hold at least: an empty one would make PSI infinite

Share = Annotated[float, Field(ge=0, le=1)]


class Scores(BaseModel, frozen=True, extra="forbid"):
    """The probabilities that a version gave to the test rows of its training, as the manifest has them."""

    bounds: tuple[Share, ...]  # upper ones; drift is told where they are `BOUNDS`
    shares: tuple[Share, ...]  # of the rows, by bin
    rows: PositiveInt
    clicks: Share  # of the rows, how many were clicked

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.bounds) != len(self.shares):
            raise ValueError("there must be as many shares as bounds")
        if not all(low < high for low, high in pairwise(self.bounds)):
            raise ValueError("the bounds must ascend")
        if not abs(sum(self.shares) - 1) < 1e-3:  # noqa: PLR2004  they may have been rounded
            raise ValueError("the shares must add up to 1")
        return self


def make_scores(probabilities: NDArray[np.float32], label: NDArray[np.float32]) -> Scores:
    """Describe the probabilities (N,) of N rows, at least one, labelled 0 or 1."""
    counts = np.bincount(np.searchsorted(BOUNDS, probabilities), minlength=len(BOUNDS))
    return Scores(
        bounds=BOUNDS, shares=tuple((counts / len(label)).tolist()), rows=len(label), clicks=float(label.mean())
    )


def psi(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Population stability index of two distributions over the same bins, each (B,) adding up to 1; 0 if they are one.

    The sum of (found - expected) ln(found / expected), which is Jeffreys' divergence (Siddiqi, Credit Risk Scorecards,
    Wiley 2006, chapter 6). By its rule of thumb, below 0.1 nothing has changed and above 0.25 much has.
    """
    expected, found = np.maximum(expected, LEAST_SHARE), np.maximum(found, LEAST_SHARE)
    return float(np.sum((found - expected) * np.log(found / expected)))


class Window:
    """Scores counted by bin, of which the older are forgotten: half in each `HALF_LIFE_S`.

    It looks at a count that only grows; what came between two looks is taken to have come evenly.
    """

    def __init__(self, shares: tuple[float, ...]) -> None:
        self._expected = np.array(shares)
        self._lately = np.zeros(len(shares))
        self._counted: NDArray[np.float64] | None = None  # at the last look
        self._looked = 0.0

    def look(self, counted: NDArray[np.float64], now: float) -> float | None:
        """Their PSI against training, None while too few count.

        Args:
            counted: (B,) scores by bin since whenever.
            now: monotonic seconds.
        """
        if self._counted is None:  # nobody knows how old these are: they are soon outweighed
            self._lately = counted * min(1.0, 2 * LEAST_SCORES / max(1.0, counted.sum()))
        else:
            new = counted - self._counted
            decay = (now - self._looked) * math.log(2) / HALF_LIFE_S
            weight = -math.expm1(-decay) / decay if decay > 0 else 1.0  # the mean of exp(-x) for x from 0 to decay
            self._lately = self._lately * math.exp(-decay) + (counted if new.min() < 0 else new) * weight
        self._counted, self._looked = counted, now
        total = float(self._lately.sum())
        return psi(self._expected, self._lately / total) if total >= LEAST_SCORES else None
