"""Where ids may start: those that the same users clicked near each other, each at the click rate it had.

A factorisation of the items' co-occurrence is what word2vec learns of words (Levy and Goldberg, NeurIPS 2014), and from
few clicks it is found at once, where gradients of a click at a time take long and learn users by heart meanwhile.

Dimension letters: N samples, P clicks, O embeddings, D embedding dimension.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh

from service.training.baselines import PRIOR_ROWS
from service.training.din import Din, by_name

SHRINK = 5.0  # clicks added to those of every item: two clicks of one user are no proof
SCALE = 0.1  # root mean square of what comes out. Validation GAUC .912 from .1, .904 from .3 and .887 from 1

PART: Final = 0.2  # log-odds that a head starts with for each standard deviation of the product


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


def start_head(din: Din, *, product: bool) -> None:
    """Let a head say 0 at first: a network is its item biases then, and differs from them by what it learns.

    With `product` it says `PART` standard deviations of the sum of pooled history times target, of the first pair, as
    far as it is from its mean: where ids start from clicks, that is how often the target was clicked with the history.
    The first two units of each hidden layer hold that sum and its negative, and their difference is passed on.

    The network must have the product in its head, batch normalisation in the hidden layers, and two units in each.
    """
    *hidden, last = din.head.layers
    dimension = by_name(din.features)[din.item].dimension
    passed = np.zeros(hidden[0].kernel.shape[0] if hidden else last.kernel.shape[0], np.float32)
    passed[2 * dimension : 3 * dimension] = 1
    for layer in hidden if product else []:
        kernel = layer.kernel.numpy()
        kernel[:, 0], kernel[:, 1] = passed, -passed
        layer.kernel.assign(kernel)
        passed = np.zeros(kernel.shape[1], np.float32)
        passed[:2] = 1, -1
    last.kernel.assign(PART * passed[:, None] if product else tf.zeros_like(last.kernel))


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
