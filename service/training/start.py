"""Where ids may start: those that the same users clicked near each other, each at the click rate it had.

A factorisation of the items' co-occurrence is what word2vec learns of words (Levy and Goldberg, NeurIPS 2014), and from
few clicks it is found at once, where gradients of a click at a time take long and learn users by heart meanwhile.

Dimension letters: N samples, P clicks, O embeddings, D embedding dimension.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh

from service.training.baselines import PRIOR_ROWS
from service.training.din import Din

SHRINK = 5.0  # clicks added to those of every item: two clicks of one user are no proof
SCALE = 0.1  # root mean square of what comes out. Validation GAUC .912 from .1, .904 from .3 and .887 from 1


class Start(NamedTuple):
    """What a training starts from where it does not start by chance."""

    embeddings: NDArray[np.float32] | None  # (O, D); None: too few clicks
    bias: NDArray[np.float32]  # (O,)

    def give(self, din: Din) -> None:
        """Set these weights of a network."""
        if self.embeddings is not None:
            for tables in (din.tables, din.target_tables):
                tables["id"].assign(self.embeddings)
        if din.architecture.item_bias:
            din.bias_id.assign(self.bias)


def make_start(user: NDArray[np.int64], item: NDArray[np.int32], label: NDArray[Any], items: int, dim: int) -> Start:
    """What samples (N,) of these users and items, clicked or not, tell of O items."""
    clicked = label > 0
    return Start(embed(user[clicked], item[clicked], items, dim), bias(item, label, items))


def bias(item: NDArray[np.int32], label: NDArray[Any], items: int) -> NDArray[np.float32]:
    """How far the log-odds of each item (O,) are above those of all, with `PRIOR_ROWS` rows of the mean added."""
    mean = min(max(float(np.mean(label)), 1e-6), 1 - 1e-6)
    shown, clicks = np.bincount(item, minlength=items), np.bincount(item, label, items)
    rate = (clicks + PRIOR_ROWS * mean) / (shown + PRIOR_ROWS)
    above: NDArray[np.float64] = np.log(rate / (1 - rate)) - np.log(mean / (1 - mean))
    return above.astype(np.float32)


def embed(user: NDArray[np.int64], item: NDArray[np.int32], items: int, dimension: int) -> NDArray[np.float32] | None:
    """Embeddings (O, D) whose products are about how often two items were clicked by one user; None if too few were.

    The eigenvectors of C / sqrt((p_i + s) (p_j + s)) with the largest eigenvalues, times their roots, C being how many
    users clicked both of two items (0 on its diagonal), p how many clicked one, and s `SHRINK`.

    Args:
        user: of each click, (P,).
        item: of each click, (P,), from 0 to O - 1; 0 stands for items that are nobody's own, and gets the mean.
        items: O.
        dimension: D.
    """
    clicked = np.unique(np.stack([user, item])[:, item > 0], axis=1)
    most = min(dimension, items - 2)  # what the method can find
    if most < 1 or not clicked.size:
        return None
    users = int(clicked[0].max()) + 1
    matrix = csr_array((np.ones(clicked.shape[1]), (clicked[0], clicked[1] - 1)), shape=(users, items - 1))
    count = matrix.sum(0)
    scale = 1 / np.sqrt(count + SHRINK)

    def multiply(x: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = scale * x.ravel()
        product: NDArray[np.float64] = scale * (matrix.T @ (matrix @ scaled) - count * scaled)
        return product

    operator = LinearOperator((items - 1, items - 1), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).random(items - 1)  # a given one, so that the same clicks give the same numbers
    value, vector = eigsh(operator, k=most, which="LA", v0=start)
    found = vector * np.sqrt(np.maximum(value, 0))  # (O - 1, most)
    embedding = np.zeros((items, dimension), np.float32)
    embedding[1:, :most] = found * (SCALE / max(np.sqrt(np.mean(found**2)), 1e-12))
    embedding[0] = embedding[1:].mean(0)
    return embedding
