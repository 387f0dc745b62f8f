"""Embeddings of which a part is shared by neighbours, for values that have an order.

Ids are mostly given in the order in which items came to be, and whoever likes one film of an age likes others of it:
the number of an id tells something of an item that nobody has clicked yet. Its place among all ids, from 0 to 1, is
encoded piecewise linearly (Gorishniy et al., NeurIPS 2022, arXiv 2203.05556, section 3.2) and multiplied by learned
vectors, the knots; what comes out is added to the embedding of the row's own. Training alone knows of it: sums are
exported.

Dimension letters: V rows, O own embeddings, K knots, D embedding dimension, B buckets.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.batch import Ids
from service.training.layers import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """What the embedding of each row is made of."""

    own: NDArray[np.int32]  # (V,) which of O embeddings is its own; 0 belongs to all that are rare
    weights: NDArray[np.float32]  # (V, K) how much it has of each knot, 1 in all

    def __call__(self, own: Tensor, knots: Tensor) -> Tensor:
        """Embeddings (V, D) from the own ones (O, D) and the knots (K, D)."""
        return tf.gather(own, self.own) + tf.matmul(tf.constant(self.weights), knots)


def make_blend(own: NDArray[np.int32], place: NDArray[np.float64], knots: int) -> Blend:
    """Put rows between knots that stand evenly from 0 to 1.

    Args:
        own: the own embedding of each row (V,).
        place: of each row (V,), from 0 to 1; NaN stands for no known place, and takes the mean of the others.
        knots: two or more.
    """
    known = np.flatnonzero(~np.isnan(place))
    at = place[known] * (knots - 1)  # from 0 to K - 1
    left = np.minimum(at.astype(np.int64), knots - 2)
    weights = np.zeros((len(place), knots), np.float32)
    weights[known, left] = 1 - (at - left)
    weights[known, left + 1] = at - left
    weights[np.isnan(place)] = weights[known].mean(0) if len(known) else 1 / knots
    return Blend(own, weights)


def places(ids: Ids, bucket: NDArray[np.int32], buckets: int) -> NDArray[np.float64]:
    """The place of each bucket (B,) in the order of the ids in it, from 0 to 1; NaN where none is.

    Args:
        ids: distinct ones, ascending, (n,).
        bucket: of each (n,). Of several ids in one bucket the first counts.
        buckets: B.
    """
    place = np.full(buckets, np.nan)
    place[bucket[::-1]] = np.linspace(0, 1, len(ids))[::-1]
    return place
