"""The Deep Interest Network as its paper draws it (Zhou et al., KDD 2018, arXiv 1706.06978), one row per candidate.

Dimension letters: N rows, T history length, D embedding dimension, H hidden units. Two (target, sequence) pairs, id and
tag, each with an attention unit of its own; the head reads both pooled histories and both targets.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from service.artifact import Activation, Architecture, Features
from service.training.layers import BatchNorm, Mlp, Tensor

MASKED = -(2.0**32) + 1  # far below any score, and exact in float32: exp of it is 0


class Rows(NamedTuple):
    """A row per candidate, values already hashed to buckets."""

    seq_id: Tensor  # (N, T) int
    seq_tag: Tensor  # (N, U) int
    seq_id_length: Tensor  # (N,) int32
    seq_tag_length: Tensor  # (N,) int32
    target_id: Tensor  # (N,) int
    target_tag: Tensor  # (N,) int


def graph(call: Callable[..., Any], **options: Any) -> Any:
    """`tf.function` of what holds no Python control flow over tensors: run as written, not as AutoGraph rewrites it."""
    return tf.function(call, autograph=False, **options)


def to_bucket(values: Tensor, buckets: int) -> Tensor:
    """Hash int64 or string values of any shape to int64 buckets: FarmHash Fingerprint64 of the decimal text, modulo."""
    text = values if values.dtype == tf.string else tf.strings.as_string(values)
    return tf.strings.to_hash_bucket_fast(text, buckets)


class AttentionUnit(tf.Module):
    """Weigh a history by its relevance to a target: MLP over [q, k, q - k, q * k], masked, normalised."""

    def __init__(
        self,
        dimension: int,
        hidden: Sequence[int],
        rng: tf.random.Generator,
        name: str,
        *,
        activation: Activation = "relu",
        softmax: bool = True,
    ) -> None:
        super().__init__(name)
        self.softmax = softmax
        self.mlp = Mlp(4 * dimension, hidden, rng, "mlp", activation)

    def weights(self, q: Tensor, k: Tensor, length: Tensor, *, training: bool = False) -> Tensor:
        """Attention weights (N, T) of keys k (N, T, D) for queries q (N, D); 0 from `length` (N,) on."""
        mask = tf.sequence_mask(length, tf.shape(k)[1])  # (N, T)
        q = tf.broadcast_to(q[:, None, :], tf.shape(k))  # (N, T, D)
        # (N, T, 4D) -> (N, T)
        score = self.mlp(tf.concat([q, k, q - k, q * k], -1), training=training, mask=mask)
        return normalise(score, mask, softmax=self.softmax)

    def __call__(self, q: Tensor, k: Tensor, length: Tensor, *, training: bool = False) -> Tensor:
        """Pooled history (N, D); zero where the history is empty."""
        return tf.einsum("nt,ntd->nd", self.weights(q, k, length, training=training), k)


def normalise(score: Tensor, mask: Tensor, *, softmax: bool) -> Tensor:
    """Turn scores (..., T) into weights: softmax over what `mask` keeps, or the scores themselves; 0 elsewhere."""
    if softmax:
        score = tf.nn.softmax(tf.where(mask, score, MASKED))
    return tf.where(mask, score, 0.0)


def mean_pool(k: Tensor, length: Tensor) -> Tensor:
    """Mean of the first `length` (N,) keys of k (N, T, D); zero where there are none."""
    mask = tf.sequence_mask(length, tf.shape(k)[1], tf.float32)  # (N, T)
    total = tf.einsum("nt,ntd->nd", mask, k)
    return total / tf.maximum(tf.cast(length, tf.float32), 1.0)[:, None]


class Din(tf.Module):
    """Embedding tables, two attention units (or mean pooling, the paper's base model), batch-normalised head."""

    def __init__(self, features: Features, architecture: Architecture, seed: int) -> None:
        super().__init__("din")
        self.features, self.architecture = features, architecture
        rng = tf.random.Generator.from_seed(seed, alg="philox")
        by_name = {"id": features.id, "tag": features.tag}
        shapes = {name: (each.buckets, each.dimension) for name, each in by_name.items()}
        self.tables = {name: _table(shape, rng, f"table_{name}") for name, shape in shapes.items()}
        self.target_tables = self.tables
        if not architecture.shared_tables:
            self.target_tables = {name: _table(shape, rng, f"target_{name}") for name, shape in shapes.items()}
        self.units = {
            name: AttentionUnit(
                each.dimension,
                architecture.attention_hidden,
                rng,
                f"attention_{name}",
                activation=architecture.attention_activation,
                softmax=architecture.softmax,
            )
            for name, each in by_name.items()
            if architecture.pooling == "attention"
        }
        width = 2 * (features.id.dimension + features.tag.dimension)
        self.norm = BatchNorm(width, "norm")
        self.head = Mlp(width, architecture.head_hidden, rng, "head", architecture.head_activation)

    def pool(
        self, name: str, target: Tensor, sequence: Tensor, length: Tensor, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Pooled history and embedded target of one pair, (N, D) each."""
        q = tf.gather(self.target_tables[name], target)  # (N, D)
        k = tf.gather(self.tables[name], sequence)  # (N, T, D)
        return self.units[name](q, k, length, training=training) if self.units else mean_pool(k, length), q

    def logits(self, rows: Rows, *, training: bool = False) -> Tensor:
        """Log-odds of a click, (N,)."""
        ids = self.pool("id", rows.target_id, rows.seq_id, rows.seq_id_length, training=training)
        tags = self.pool("tag", rows.target_tag, rows.seq_tag, rows.seq_tag_length, training=training)
        return self.head(self.norm(tf.concat([*ids, *tags], -1), training=training), training=training)


def _table(shape: tuple[int, int], rng: tf.random.Generator, name: str) -> tf.Variable:
    return tf.Variable(rng.uniform(shape, -0.05, 0.05), name=name)
