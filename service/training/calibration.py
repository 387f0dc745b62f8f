"""What is done to a network's log-odds so that they are those of clicks: scale * logit + shift."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log-odds of clicks are scale * logit + shift."""

    scale: float = 1.0
    shift: float = 0.0

    def shifted(self, by: float) -> "Calibration":
        """The same, and then `by` more."""
        return Calibration(self.scale, self.shift + by)


def fit_platt(logit: NDArray[Any], label: NDArray[Any]) -> Calibration | None:
    """Platt scaling: a logistic regression of labels (N,) on log-odds (N,) that the network did not learn from.

    J. Platt, "Probabilistic outputs for support vector machines", 1999. None where the network ranks no better than
    chance: a scale that is not positive would turn its order around.
    """
    model = LogisticRegression(C=np.inf).fit(np.asarray(logit, np.float64)[:, None], label)
    scale, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Calibration(scale, shift) if scale > 0 else None


def prior_shift(sampled: float, real: float) -> float:
    """What to add to log-odds learned where a share `sampled` of the rows are clicks, if `real` of them truly are.

    Drawing negatives multiplies the odds of a click by the same number whatever the features, so the correction is a
    constant: G. King and L. Zeng, "Logistic regression in rare events data", Political Analysis 9(2), 2001, section
    4.1 (prior correction). X. He et al., "Practical lessons from predicting clicks on ads at Facebook", ADKDD 2014,
    section 6.3, have the same as p / (p + (1 - p) / w), w the share of the negatives that is kept.

    Args:
        sampled: share of clicks among the training rows, inside (0, 1).
        real: share of clicks where the model serves, inside (0, 1).
    """
    return math.log(real / (1 - real)) - math.log(sampled / (1 - sampled))
