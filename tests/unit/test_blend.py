from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from service.training.blend import make_blend, places


def test_places_by_hand() -> None:
    """Ids stand evenly between 0 and 1 in their order, however far apart their numbers are; empty buckets have none."""
    found = places(np.array([-7, 3, 4, 10**18, 2**62]), np.array([4, 1, 0, 2, 5], np.int32), 7)
    np.testing.assert_array_equal(found, [0.5, 0.25, 0.75, np.nan, 0.0, 1.0, np.nan])


def test_first_id_of_a_bucket_counts() -> None:
    """Two ids in one bucket have the place of the lower one; a single id stands at 0; none has no place."""
    np.testing.assert_array_equal(places(np.array([1, 2, 9]), np.array([0, 1, 0], np.int32), 2), [0, 0.5])
    np.testing.assert_array_equal(places(np.array([5]), np.array([1], np.int32), 2), [np.nan, 0])
    np.testing.assert_array_equal(places(np.array([], np.int64), np.array([], np.int32), 2), [np.nan, np.nan])


def test_weights_by_hand() -> None:
    """A row has of its two nearest knots by its distance; one without a place has the mean of all others."""
    place = np.array([np.nan, 0.0, 0.25, 0.6, 1.0])
    blend = make_blend(np.arange(5, dtype=np.int32), place, 3)
    expected = np.array([[0.375, 0.325, 0.3], [1, 0, 0], [0.5, 0.5, 0], [0, 0.8, 0.2], [0, 0, 1]])
    np.testing.assert_allclose(blend.weights, expected, atol=1e-6)


def test_no_known_place() -> None:
    """Where nothing has a place all knots weigh the same."""
    blend = make_blend(np.zeros(2, np.int32), np.full(2, np.nan), 4)
    np.testing.assert_array_equal(blend.weights, np.full((2, 4), 0.25))


@pytest.mark.parametrize("knots", [2, 3, 8])
def test_embedding_is_own_and_interpolated(knots: int) -> None:
    """The embedding is the row's own plus what linear interpolation between the knots gives at its place."""
    rng = np.random.default_rng(knots)
    own, place = rng.integers(0, 6, 40).astype(np.int32), rng.random(40)
    table, values = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(knots, 5)).astype(np.float32)
    found: Any = make_blend(own, place, knots)(tf.constant(table), tf.constant(values))
    at = np.linspace(0, 1, knots)
    between = np.stack([np.interp(place, at, column) for column in values.T], 1)
    np.testing.assert_allclose(found, table[own] + between, atol=1e-5)
