import numpy as np

from service.training.runs import runs


def test_runs_of_one_key() -> None:
    """Each element is told where its stretch of equal neighbours starts and stops."""
    starts, stops = runs(np.array([7, 7, 3, 7]))
    assert starts.tolist() == [0, 0, 2, 3]
    assert stops.tolist() == [2, 2, 3, 4]


def test_runs_of_two_keys() -> None:
    """A change in any key ends a run."""
    starts, _ = runs(np.array([1, 1, 1, 2]), np.array([5, 5, 6, 6]))
    assert starts.tolist() == [0, 0, 2, 3]


def test_runs_of_nothing() -> None:
    """No elements have no runs."""
    assert [len(part) for part in runs(np.array([], np.int64))] == [0, 0]
