import numpy as np
import pytest

from service.training import slices
from tests.labelled import make_samples


def test_slices_by_history() -> None:
    """Each row is in the slice of its history's length, from the edge to before the next; empty slices are left out."""
    lengths = [0, 1, 4, 5, 60, 50]
    samples = make_samples(
        item=[1] * 6, label=[1, 0, 1, 0, 1, 0], user=[0, 1, 2, 3, 4, 4], history=[[1] * length for length in lengths]
    )
    found = slices.by_history(samples, np.linspace(0.1, 0.6, 6, dtype=np.float32), seed=1, draws=50)
    assert [(each.name, each.rows, each.users) for each in found] == [
        ("0", 1, 1),
        ("1-4", 2, 2),
        ("5-9", 1, 1),
        ("50+", 2, 1),
    ]
    assert (found[1].clicks, found[1].predicted) == pytest.approx((0.5, 0.25))
    assert set(found[1].figures) >= {"auc", "logloss"}
    assert found[3].figures == {}  # one user


def test_slices_by_popularity() -> None:
    """Only the positives of what was known count for an item."""
    known = make_samples(item=[1] * 5 + [2] * 9, label=[1] * 5 + [0] * 8 + [1])
    samples = make_samples(item=[1, 2, 3], label=[1, 0, 1])
    found = slices.by_popularity(known, samples, np.full(3, 0.5, np.float32), seed=1, draws=50)
    assert [(each.name, each.rows, each.clicks) for each in found] == [("0", 1, 1), ("1-4", 1, 0), ("5-19", 1, 1)]
