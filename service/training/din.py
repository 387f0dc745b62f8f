"""The Deep Interest Network as its paper draws it (Zhou et al., KDD 2018, arXiv 1706.06978), one row per candidate.

Dimension letters: N rows, T history length, D embedding dimension, H1 units of the attention's first layer. Any number
of (target, sequence) pairs by name, each with an attention unit of its own; the head reads every pooled history and
every target. What is served has two pairs, id and tag.

Tables have rows for what training met, where a value may be in any of many more buckets: a network that is served has
maps from one to the other. In training values are rows already.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.artifact import Activation, Architecture, Feature, Features
from service.training.blend import Blend
from service.training.layers import BatchNorm, Mlp, Tensor

FEW_ROWS = 64  # of a table
MASKED = -(2.0**32) + 1  # far below any score, and exact in float32: exp of it is 0


class Pair(NamedTuple):
    """What one pair is computed from, a row per candidate: buckets where the network has a map of them, else rows."""

    sequence: Tensor  # (N, T) int
    length: Tensor  # (N,) int32
    target: Tensor  # (N,) int


class Rows(NamedTuple):
    """The two pairs that are served, a row per candidate."""

    seq_id: Tensor  # (N, T) int
    seq_tag: Tensor  # (N, U) int
    seq_id_length: Tensor  # (N,) int32
    seq_tag_length: Tensor  # (N,) int32
    target_id: Tensor  # (N,) int
    target_tag: Tensor  # (N,) int

    @property
    def pairs(self) -> dict[str, Pair]:
        """By name."""
        return {
            "id": Pair(self.seq_id, self.seq_id_length, self.target_id),
            "tag": Pair(self.seq_tag, self.seq_tag_length, self.target_tag),
        }

    @staticmethod
    def of(pairs: Mapping[str, Pair]) -> "Rows":
        """The reverse of `pairs`."""
        ids, tags = pairs["id"], pairs["tag"]
        return Rows(ids.sequence, tags.sequence, ids.length, tags.length, ids.target, tags.target)


Inputs: TypeAlias = Rows | Mapping[str, Pair]
Kinds: TypeAlias = Features | Mapping[str, Feature]  # in the order the head reads them


def pairs_of(rows: Inputs) -> Mapping[str, Pair]:
    """The pairs by name."""
    return rows.pairs if isinstance(rows, Rows) else rows


def by_name(features: Kinds) -> dict[str, Feature]:
    """The features of the pairs by name."""
    return {"id": features.id, "tag": features.tag} if isinstance(features, Features) else dict(features)


def graph(call: Callable[..., Any], **options: Any) -> Any:
    """`tf.function` of what holds no Python control flow over tensors: run as written, not as AutoGraph rewrites it."""
    return tf.function(call, autograph=False, **options)


def to_bucket(values: Tensor, buckets: int) -> Tensor:
    """Hash int64 or string values of any shape to int64 buckets: FarmHash Fingerprint64 of the decimal text, modulo."""
    text = values if values.dtype == tf.string else tf.strings.as_string(values)
    return tf.strings.to_hash_bucket_fast(text, buckets)


class AttentionUnit(tf.Module):
    """Weigh a history by its relevance to a target: MLP over [q, k, q - k, q * k], masked, normalised.

    With the kernel of the MLP's first layer cut in four, [Wq; Wk; Wd; Wp], that layer is

        q (Wq + Wd) + k (Wk - Wd + diag(q) Wp) + b

    a matrix (D, H1) for each row: nothing of size (N, T, 4D) is built. With 256 rows, T 50, D 32 and H1 32 a network's
    gradients took 17 ms of a processor so, 28 ms by the wide input, and 19 ms as [k, q * k] [Wk - Wd; Wp].
    """

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
        score = self.mlp.finish(self._first(q, k), training=training, mask=mask)  # (N, T)
        return normalise(score, mask, softmax=self.softmax)

    def _first(self, q: Tensor, k: Tensor) -> Tensor:
        """What the first layer makes of q (N, D) and k (N, T, D) before its activation, (N, T, H1)."""
        first = self.mlp.layers[0]
        wq, wk, wd, wp = tf.split(first.kernel, 4)  # (D, H1) each
        of_q = tf.matmul(q, wq + wd) + first.bias  # (N, H1)
        folded = wk - wd + q[:, :, None] * wp  # (N, D, H1)
        return tf.matmul(k, folded) + of_q[:, None, :]  # (N, T, H1)

    def __call__(self, q: Tensor, k: Tensor, length: Tensor, *, training: bool = False) -> Tensor:
        """Pooled history (N, D); zero where the history is empty."""
        weights = self.weights(q, k, length, training=training)
        return tf.squeeze(tf.matmul(weights[:, None, :], k), 1)  # (N, 1, T) x (N, T, D)


def normalise(score: Tensor, mask: Tensor, *, softmax: bool) -> Tensor:
    """Turn scores (..., T) into weights: softmax over what `mask` keeps, or the scores themselves; 0 elsewhere."""
    if softmax:
        score = tf.nn.softmax(tf.where(mask, score, MASKED))
    return tf.where(mask, score, 0.0)


def look_up(table: Tensor, rows: Tensor) -> Tensor:
    """`tf.gather` of a table (V, D); the gradient of one with few rows is a matrix product, as scattering takes longer.

    At 51,200 rows of 32 numbers and V = 21 it took 1.5 ms against 7.8.
    """
    if table.shape[0] > FEW_ROWS:
        return tf.gather(table, rows)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def gather(values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        def gradient(upstream: Tensor) -> Tensor:
            flat = tf.reshape(upstream, (-1, upstream.shape[-1]))  # (M, D)
            return tf.matmul(tf.one_hot(tf.reshape(rows, (-1,)), table.shape[0]), flat, transpose_a=True)

        return tf.gather(values, rows), gradient

    return gather(tf.convert_to_tensor(table))


def mean_pool(k: Tensor, length: Tensor) -> Tensor:
    """Mean of the first `length` (N,) keys of k (N, T, D); zero where there are none."""
    mask = tf.sequence_mask(length, tf.shape(k)[1], tf.float32)  # (N, T)
    total = tf.einsum("nt,ntd->nd", mask, k)
    return total / tf.maximum(tf.cast(length, tf.float32), 1.0)[:, None]


class Din(tf.Module):
    """Embedding tables, attention units (or mean pooling, the paper's base model), batch-normalised head.

    Args:
        features: of each pair, in the order the head reads them.
        architecture: sizes and options.
        seed: of the weights, and of what is dropped in training.
        rows: how many rows the tables of each pair have, those that training met; by default one for every bucket.
        maps: which row each bucket has, (buckets,), of the pairs that `logits` is given buckets of; others give rows.
        blends: of the pairs whose rows share a part of their embeddings; their tables hold the rows' own parts.
        input_norm: whether batch normalisation stands before the head, or one that is idle.
        layer_norm: whether it stands before the activations of the head's hidden layers.
        dropout: share of the outputs of the head's hidden layers that is dropped in training.
    """

    def __init__(
        self,
        features: Kinds,
        architecture: Architecture,
        seed: int,
        rows: Mapping[str, int] | None = None,
        blends: Mapping[str, Blend] | None = None,
        *,
        maps: Mapping[str, NDArray[np.int32]] | None = None,
        input_norm: bool = True,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__("din")
        self.features: Any = features  # `Features` in whatever is served
        self.architecture = architecture
        rng = tf.random.Generator.from_seed(seed, alg="philox")
        kinds = by_name(features)
        shapes = {name: (rows[name] if rows else each.buckets, each.dimension) for name, each in kinds.items()}
        self.maps = {
            name: tf.Variable(each, trainable=False, dtype=tf.int32, name=f"rows_{name}")
            for name, each in (maps or {}).items()
        }
        self.blends = dict(blends or {})
        between = {name: (each.weights.shape[1], shapes[name][1]) for name, each in self.blends.items()}
        self.tables, self.knots = _tables(shapes, rng, "table"), _tables(between, rng, "knots")
        self.target_tables, self.target_knots = self.tables, self.knots
        if not architecture.shared_tables:
            self.target_tables = _tables(shapes, rng, "target")
            self.target_knots = _tables(between, rng, "target_knots")
        self.units = {
            name: AttentionUnit(
                each.dimension,
                architecture.attention_hidden,
                rng,
                f"attention_{name}",
                activation=architecture.attention_activation,
                softmax=architecture.softmax,
            )
            for name, each in kinds.items()
            if architecture.pooling == "attention"
        }
        width = (3 if architecture.product else 2) * sum(each.dimension for each in kinds.values())
        self.norm = BatchNorm(width, "norm", idle=not input_norm)
        hidden, activation = architecture.head_hidden, architecture.head_activation
        self.head = Mlp(width, hidden, rng, "head", activation, norm=layer_norm, dropout=dropout)
        self.item = next(iter(kinds))  # the first pair's values are what the bias is of
        if architecture.item_bias:
            self.bias_id = tf.Variable(tf.zeros(shapes[self.item][:1]), name="bias_id")
            if self.item in between:
                self.bias_knots = tf.Variable(tf.zeros(between[self.item][:1]), name="bias_knots")

    def bucket(self, name: str, values: Tensor) -> Tensor:
        """The buckets that int64 or string values of a pair fall into, of any shape."""
        return to_bucket(values, by_name(self.features)[name].buckets)

    def row(self, name: str, values: Tensor) -> Tensor:
        """The rows of a pair's tables for what `logits` takes of it, of any shape."""
        return tf.gather(self.maps[name], values) if name in self.maps else values

    def embeddings(self, name: str) -> tuple[Tensor, Tensor]:
        """Of each row of a pair, (V, D): as a target, and in histories."""
        blend, own, target = self.blends.get(name), self.tables[name], self.target_tables[name]
        if blend is None:
            return target, own
        blended = blend(own, self.knots[name])
        return blended if target is own else blend(target, self.target_knots[name]), blended

    def biases(self) -> Tensor:
        """Of each row of the first pair, (V,), where there are any."""
        blend = self.blends.get(self.item)
        if blend is None:
            return self.bias_id
        return tf.squeeze(blend(self.bias_id[:, None], self.bias_knots[:, None]), 1)

    def pool(self, name: str, pair: Pair, *, training: bool) -> list[Tensor]:
        """What the head reads of a pair of rows, (N, D) each: pooled history, embedded target, maybe their product."""
        look = look_up if training else tf.gather
        targets, entries = self.embeddings(name)
        q = look(targets, pair.target)  # (N, D)
        k = look(entries, pair.sequence)  # (N, T, D)
        length = pair.length
        pooled = self.units[name](q, k, length, training=training) if self.units else mean_pool(k, length)
        return [pooled, q, pooled * q] if self.architecture.product else [pooled, q]

    def logits(self, rows: Inputs, *, training: bool = False) -> Tensor:
        """Log-odds of a click, (N,); of buckets in pairs that have a map, of rows in others."""
        pairs = {
            name: Pair(self.row(name, each.sequence), each.length, self.row(name, each.target))
            for name, each in pairs_of(rows).items()
        }
        parts = [part for name in by_name(self.features) for part in self.pool(name, pairs[name], training=training)]
        logits = self.head(self.norm(tf.concat(parts, -1), training=training), training=training)
        return logits + tf.gather(self.biases(), pairs[self.item].target) if self.architecture.item_bias else logits


def _tables(shapes: Mapping[str, tuple[int, int]], rng: tf.random.Generator, name: str) -> dict[str, tf.Variable]:
    return {key: tf.Variable(rng.uniform(shape, -0.05, 0.05), name=f"{name}_{key}") for key, shape in shapes.items()}
