"""Two versions on the same rows: their difference, and whether it is more than the luck of the users."""

from dataclasses import dataclass
from typing import Literal

from service.batch import Floats
from service.evaluation import Figure
from service.training import Samples, evaluate, intervals


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two versions."""

    first: float
    second: float
    change: Figure  # second less first, its interval paired: both versions met the same drawn users
    better: Literal["first", "second"] | None  # None: the interval holds 0


def differences(
    samples: Samples, first: Floats, second: Floats, seed: int, draws: int = intervals.DRAWS
) -> dict[str, Difference]:
    """Compare probabilities (N,) of two versions, by metric.

    Raises:
        DataError: the rows are of one class, of one user, or no user has both classes.
    """
    evaluate.quality(samples.label, first, samples.user)  # refuses what no figure can be had of
    sums = [intervals.make_sums(samples.label, score, samples.user) for score in (first, second)]
    value, other = (intervals.point(each) for each in sums)
    sample, sample_other = (intervals.drawn(each, seed, draws) for each in sums)
    return {
        name: _difference(
            name,
            value[name],
            other[name],
            intervals.interval(other[name] - value[name], sample_other[name] - sample[name]),
        )
        for name in intervals.METRICS
    }


def _difference(name: str, first: float, second: float, change: Figure) -> Difference:
    if change.low <= 0 <= change.high:
        return Difference(first, second, change, None)
    won = (change.value > 0) == intervals.HIGHER_IS_BETTER[name]
    return Difference(first, second, change, "second" if won else "first")
