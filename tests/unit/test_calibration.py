import numpy as np
import pytest

from service.training.calibration import Calibration, fit_platt, prior_shift


def draw(scale: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds, and labels drawn by other ones."""
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 1, 40_000)
    return logit, (rng.random(40_000) < 1 / (1 + np.exp(-(scale * logit + shift)))).astype(np.float32)


def test_platt_finds_scale_and_shift() -> None:
    """Labels drawn by scale * logit + shift give back scale and shift."""
    found = fit_platt(*draw(0.5, -1.0))
    assert found is not None
    assert (found.scale, found.shift) == pytest.approx((0.5, -1.0), abs=0.05)


def test_platt_turns_no_order_around() -> None:
    """A network that ranks the wrong way is not repaired by a negative scale."""
    assert fit_platt(*draw(-0.5, 0.0)) is None


def test_prior_correction_is_exact() -> None:
    """Dropping negatives at random and shifting the log-odds back gives the odds before, p / (p + (1 - p) / w)."""
    real, kept = 0.02, 0.1
    sampled = real / (real + (1 - real) * kept)
    assert prior_shift(sampled, real) == pytest.approx(np.log(kept))
    p = 0.3
    odds = p / (1 - p) * np.exp(prior_shift(sampled, real))
    assert odds / (1 + odds) == pytest.approx(p / (p + (1 - p) / kept))


def test_shifts_add_up() -> None:
    """A calibration may be shifted further; its scale stays."""
    assert Calibration(2.0, 1.0).shifted(-3.0) == Calibration(2.0, -2.0)
