"""Mini-batch aware regularisation (Zhou et al., KDD 2018, arXiv 1706.06978, section 5.2): L2 of what a batch meets."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.training.din import Din, Inputs, pairs_of
from service.training.layers import Tensor
from service.training.vocabulary import Vocabulary


def penalty(din: Din, rows: Inputs, vocabularies: Mapping[str, Vocabulary], strength: float) -> Tensor:
    """The sum over every feature value j in the batch of strength / (2 n_j) * ||w_j||^2, a scalar.

    n_j is how often training meets the value, and w_j its embedding. Where targets and histories have tables of their
    own, they are features of their own. The bias of an item is a weight of its target. Padding counts for nothing, nor
    does what embeddings share.
    """
    total = tf.constant(0.0)
    for name, pair in pairs_of(rows).items():
        vocabulary, target = vocabularies[name], tf.reshape(pair.target, [-1])
        history = tf.boolean_mask(pair.sequence, tf.sequence_mask(pair.length, tf.shape(pair.sequence)[1]))
        if vocabulary.blend is not None:
            target, history = (tf.gather(vocabulary.blend.own, each) for each in (target, history))
        if din.architecture.shared_tables:
            total += _of_table(din.tables[name], tf.concat([history, target], 0), vocabulary.count)
        else:
            total += _of_table(din.tables[name], history, vocabulary.entries)
            total += _of_table(din.target_tables[name], target, vocabulary.targets)
        if din.architecture.item_bias and name == din.item:
            total += _of_table(din.bias_id[:, None], target, vocabulary.targets)
    return strength / 2 * total


def _of_table(table: Tensor, met: Tensor, count: NDArray[np.int64]) -> Tensor:
    """The sum of ||w_j||^2 / n_j over the distinct rows of a table (O, D) among `met` (M,), count (O,)."""
    distinct, _ = tf.unique(met)
    share = tf.gather(tf.constant(1 / np.maximum(count, 1), tf.float32), distinct)
    return tf.reduce_sum(share[:, None] * tf.square(tf.gather(table, distinct)))
