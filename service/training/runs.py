"""Runs of equal neighbours in sorted arrays, and slices of one array: what takes the place of a loop per user."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def covered(start: NDArray[np.int64], stop: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """How many of the slices from `start` to `stop` (exclusive), (N,) each, hold each of `length` places, (length,)."""
    edges = np.bincount(start, minlength=length + 1) - np.bincount(stop, minlength=length + 1)
    return np.cumsum(edges[:-1])


def runs(*keys: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the run each element belongs to starts and stops (exclusive), two arrays (N,).

    A run is a stretch in which every one of `keys`, arrays (N,), stays the same.
    """
    length = len(keys[0])
    new = np.ones(length, bool)
    new[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    starts = np.flatnonzero(new)
    stops = np.append(starts[1:], length)
    number = np.cumsum(new) - 1
    return starts[number], stops[number]
