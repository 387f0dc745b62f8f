"""The same network as `din`, rearranged for serving: folded, in blocks, compiled once.

Three rearrangements, none of which changes the function:

Folding. The attention unit's first layer reads [q, k, q - k, q * k] with weights stacked [Wq; Wk; Wd; Wp], so it is

    q (Wq + Wd) + k (Wk - Wd + diag(q) Wp) + b

linear in k once q is known: per candidate one matrix T(q) (D, H1) and one bias (H1,), and no (T, 4D) input. Batch
normalisation at serving time is x * scale + shift, which the head's first layer swallows.

Blocks. Candidates are computed B at a time against one history, so that what lies between the layers stays in the
cache. Each block uses the smallest of a few history lengths ("rungs") that holds its history.

One compiled shape. XLA compiles for shapes, and compiling takes seconds. Here a chunk always has `CHUNK_BLOCKS` blocks
of the longest history; how many blocks are real, and which rung each uses, are values, not shapes. So a request of any
shape runs code that was compiled when the version was warmed.

Dimension letters: R requests, K blocks, B candidates in a block, T history length, D embedding, H hidden.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from service.artifact import DICE_EPSILON, NORM_EPSILON, Architecture
from service.training.din import AttentionUnit, Din, graph, normalise
from service.training.layers import Dense, Dice, PRelu, Tensor

Embedded: TypeAlias = tuple[Tensor, ...]  # of ids, of tags; of candidates also the items' biases, where there are any
Learned: TypeAlias = tuple[Tensor, ...]  # what `activate` takes, (units,) each

CHUNK_BLOCKS = 16
BLOCK = 16  # 16 to 128 run equally fast per candidate; small blocks waste less on small requests


class Blocks(NamedTuple):
    """Inputs of the `score` signature, as in `service.batch.BlockBatch`."""

    seq_id: Tensor  # (R, T)
    seq_tag: Tensor  # (R, U)
    seq_id_length: Tensor  # (R,) int32
    seq_tag_length: Tensor  # (R,) int32
    target_id: Tensor  # (K, B)
    target_tag: Tensor  # (K, B)
    block_request: Tensor  # (K,) int32


class Layer(NamedTuple):
    """A dense layer, frozen."""

    kernel: Tensor  # (inputs, units)
    bias: Tensor  # (units,)
    learned: Learned


def activate(name: str, x: Tensor, learned: Learned) -> Tensor:
    """Apply an activation to sums x (..., units); `learned` is what `_learned` makes of it."""
    if name == "relu":
        return tf.nn.relu(x)
    if name == "sigmoid":
        return tf.sigmoid(x)
    if name == "prelu":
        return tf.where(x > 0, x, learned[0] * x)
    alpha, scale, shift = learned
    p = tf.sigmoid(x * scale + shift)
    return p * x + (1 - p) * alpha * x


def run_mlp(x: Tensor, layers: tuple[Layer, ...], activation: str) -> Tensor:
    """Map (N, inputs) to (N,); the last layer is linear, of one unit."""
    for layer in layers[:-1]:
        x = activate(activation, tf.matmul(x, layer.kernel) + layer.bias, layer.learned)
    return tf.reduce_sum(x * layers[-1].kernel[:, 0], 1) + layers[-1].bias


class FoldedUnit(NamedTuple):
    """One attention unit with its first layer folded and its weights frozen."""

    of_q: Tensor  # (D, H1)
    of_k: Tensor  # (D, H1)
    of_product: Tensor  # (D, H1)
    bias: Tensor  # (H1,)
    learned: Learned  # of the first layer
    rest: tuple[Layer, ...]

    def weights(self, q: Tensor, k: Tensor, length: Tensor, architecture: Architecture) -> Tensor:
        """Attention weights (B, T) of one history k (T, D), `length` () of it real, for queries q (B, D)."""
        block, time, activation = tf.shape(q)[0], tf.shape(k)[0], architecture.attention_activation
        folded = self.of_k + q[:, :, None] * self.of_product  # (B, D, H1)
        bias = tf.matmul(q, self.of_q) + self.bias  # (B, H1)
        keys = tf.broadcast_to(k[None], (block, time, k.shape[1]))  # (B, T, D)
        hidden = activate(activation, tf.matmul(keys, folded) + bias[:, None, :], self.learned)  # (B, T, H1)
        hidden = tf.reshape(hidden, (block * time, self.bias.shape[0]))  # (B*T, H1)
        score = run_mlp(hidden, self.rest, activation)  # (B*T,)
        mask = tf.range(time) < length  # (T,)
        return normalise(tf.reshape(score, (block, time)), mask[None], softmax=architecture.softmax)


class MeanUnit(NamedTuple):
    """What stands for an attention unit where the network has none: every entry of the history weighs the same."""

    def weights(self, q: Tensor, k: Tensor, length: Tensor, architecture: Architecture) -> Tensor:
        """Weights (B, T), as `FoldedUnit.weights`."""
        time = tf.shape(k)[0]
        mean = tf.cast(tf.range(time) < length, tf.float32) / tf.cast(tf.maximum(length, 1), tf.float32)  # (T,)
        return tf.broadcast_to(mean, (tf.shape(q)[0], time))


class Frozen(NamedTuple):
    """Everything of a network but its tables: what a block is computed with."""

    ids: FoldedUnit | MeanUnit
    tags: FoldedUnit | MeanUnit
    head: tuple[Layer, ...]

    def block(
        self, q: Embedded, k: Embedded, length: Embedded, architecture: Architecture
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block: probabilities (B,), attention to ids (B, T) and to tags (B, U)."""
        ids = self.ids.weights(q[0], k[0], length[0], architecture)
        tags = self.tags.weights(q[1], k[1], length[1], architecture)
        parts = []  # (B, D) each
        for weights, keys, queries in ((ids, k[0], q[0]), (tags, k[1], q[1])):
            pooled = tf.matmul(weights, keys)
            parts += [pooled, queries, pooled * queries] if architecture.product else [pooled, queries]
        logits = run_mlp(tf.concat(parts, -1), self.head, architecture.head_activation)
        return tf.sigmoid(logits + q[2] if architecture.item_bias else logits), ids, tags


class Folded:
    """The serving form of one trained `Din`; shares its embedding tables, freezes the rest."""

    def __init__(self, din: Din) -> None:
        self.din = din
        self.frozen = _freeze(din)
        # An argument of the compiled chunk, for products with literals run 1.2 to 1.6 times slower (256 candidates with
        # a history of 50 and 200). One argument measured like twenty: 0.110 to 0.114 ms and 0.111 to 0.117, 10 x 20.
        self._packed = tf.concat([tf.reshape(each, [-1]) for each in tf.nest.flatten(self.frozen)], 0)
        self.longest = max(din.features.id.max_history, din.features.tag.max_history)
        self.rungs = rungs(self.longest)
        self._run_chunk = graph(self._chunk, jit_compile=True)

    def _unpack(self, packed: Tensor) -> Frozen:
        """What `packed` holds, in the shapes it had."""
        shapes = [each.shape for each in tf.nest.flatten(self.frozen)]
        parts = tf.split(packed, [shape.num_elements() for shape in shapes])
        flat = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        frozen: Frozen = tf.nest.pack_sequence_as(self.frozen, flat)
        return frozen

    def embed(self, blocks: Blocks) -> tuple[Embedded, Embedded]:
        """Hash and look up: targets (K, B, D) and perhaps biases (K, B), histories (R, T, D) and (R, U, D)."""
        din = self.din
        values = {"id": (blocks.target_id, blocks.seq_id), "tag": (blocks.target_tag, blocks.seq_tag)}
        rows = {name: [din.row(name, din.bucket(name, each)) for each in pair] for name, pair in values.items()}
        q = [tf.gather(din.target_tables[name], target) for name, (target, _) in rows.items()]
        if din.architecture.item_bias:
            q.append(tf.gather(din.bias_id, rows["id"][0]))
        return tuple(q), tuple(tf.gather(din.tables[name], sequence) for name, (_, sequence) in rows.items())

    def score(self, blocks: Blocks) -> Tensor:
        """Probabilities (K, B) of any number of blocks, chunk by chunk.

        Histories may be padded to any length T and U, but none may itself be longer than `longest`.
        """
        q, k = self.embed(
            blocks._replace(
                seq_id=blocks.seq_id[:, : tf.reduce_max(blocks.seq_id_length)],
                seq_tag=blocks.seq_tag[:, : tf.reduce_max(blocks.seq_tag_length)],
            )
        )
        count = tf.shape(blocks.block_request)[0]
        k = (_pad(k[0], 1, self.longest), _pad(k[1], 1, self.longest))
        chunks = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False)

        def step(start: Tensor, chunks: Any) -> tuple[Tensor, Any]:
            stop = tf.minimum(start + CHUNK_BLOCKS, count)
            request = blocks.block_request[start:stop]
            candidates = tuple(_pad(each[start:stop], 0, CHUNK_BLOCKS) for each in q)
            parts = [
                _pad(part, 0, CHUNK_BLOCKS)
                for part in (
                    tf.gather(k[0], request),
                    tf.gather(k[1], request),
                    tf.gather(blocks.seq_id_length, request),
                    tf.gather(blocks.seq_tag_length, request),
                )
            ]
            done = self._run_chunk(candidates, *parts, stop - start, self._packed)
            return stop, chunks.write(start // CHUNK_BLOCKS, done[: stop - start])

        _, chunks = tf.while_loop(lambda start, _: start < count, step, (tf.constant(0), chunks), parallel_iterations=1)
        return tf.ensure_shape(chunks.concat(), (None, None))

    def explain(self, blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities (K, B), attention to ids (K, B, T) and to tags (K, B, U), in plain operations."""
        q, k = self.embed(blocks)
        length = blocks.seq_id_length, blocks.seq_tag_length

        def one(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            request = blocks.block_request[index]
            return self.frozen.block(
                tuple(each[index] for each in q),
                (k[0][request], k[1][request]),
                (length[0][request], length[1][request]),
                self.din.architecture,
            )

        answer: tuple[Tensor, Tensor, Tensor] = tf.map_fn(
            one,
            tf.range(tf.shape(blocks.block_request)[0]),
            fn_output_signature=(
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None, None), tf.float32),
                tf.TensorSpec((None, None), tf.float32),
            ),
        )
        return answer

    def _chunk(
        self,
        candidates: Embedded,  # (CHUNK_BLOCKS, B, D), biases (CHUNK_BLOCKS, B)
        k_id: Tensor,  # (CHUNK_BLOCKS, longest, D), each block's own history
        k_tag: Tensor,
        id_length: Tensor,  # (CHUNK_BLOCKS,)
        tag_length: Tensor,
        count: Tensor,  # () blocks that are real
        packed: Tensor,
    ) -> Tensor:
        """Probabilities (CHUNK_BLOCKS, B); static shapes in, so compiled once."""
        frozen = self._unpack(packed)

        def at(index: Tensor, time: int) -> Tensor:
            q = tuple(each[index] for each in candidates)
            k = k_id[index][:time], k_tag[index][:time]
            return frozen.block(q, k, (id_length[index], tag_length[index]), self.din.architecture)[0]

        def step(index: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
            need = tf.maximum(id_length[index], tag_length[index])
            rung = tf.reduce_sum(tf.cast(need > np.array(self.rungs[:-1], np.int32), tf.int32))
            done = tf.switch_case(rung, [lambda time=time: at(index, time) for time in self.rungs])
            return index + 1, tf.tensor_scatter_nd_update(out, [[index]], done[None])

        out = tf.zeros((CHUNK_BLOCKS, candidates[0].shape[1]))
        return tf.while_loop(lambda index, _: index < count, step, (tf.constant(0), out))[1]


def rungs(longest: int) -> tuple[int, ...]:
    """History lengths to compile for: halving from the longest down to 8."""
    found = [longest]
    while found[-1] > 8:  # noqa: PLR2004  below that, a block costs the same whatever its history
        found.append(-(-found[-1] // 2))
    return tuple(reversed(found))


def _freeze(din: Din) -> Frozen:
    """A network's weights as they are now, folded."""
    units = [_fold_unit(din.units[name]) if din.units else MeanUnit() for name in ("id", "tag")]
    return Frozen(units[0], units[1], _fold_head(din))


def _fold_unit(unit: AttentionUnit) -> FoldedUnit:
    first, *rest = map(_frozen, unit.mlp.layers)
    wq, wk, wd, wp = tf.split(first.kernel, 4)  # (D, H1) each
    return FoldedUnit(wq + wd, wk - wd, wp, first.bias, first.learned, tuple(rest))


def _fold_head(din: Din) -> tuple[Layer, ...]:
    """The head's layers, batch normalisation in the first."""
    norm, (first, *rest) = din.norm, map(_frozen, din.head.layers)
    scale = norm.gamma / tf.sqrt(norm.variance + NORM_EPSILON)
    shift = norm.beta - norm.mean * scale
    bias = first.bias + tf.linalg.matvec(first.kernel, shift, transpose_a=True)
    return Layer(first.kernel * scale[:, None], bias, first.learned), *rest


def _frozen(layer: Dense) -> Layer:
    return Layer(tf.constant(layer.kernel.numpy()), tf.constant(layer.bias.numpy()), _learned(layer.activation))


def _learned(activation: Any) -> Learned:
    """An activation's variables as `activate` takes them: alpha of PReLU; alpha, scale and shift of Dice."""
    if isinstance(activation, PRelu):
        return (tf.constant(activation.alpha.numpy()),)
    if isinstance(activation, Dice):
        scale = 1 / tf.sqrt(activation.variance + DICE_EPSILON)
        return tf.constant(activation.alpha.numpy()), scale, -activation.mean * scale
    return ()


def _pad(x: Tensor, axis: int, size: int) -> Tensor:
    """Pad one axis of x with zeros to a static size."""
    short = size - tf.shape(x)[axis]
    padded = tf.pad(x, [(0, short if each == axis else 0) for each in range(len(x.shape))])
    return tf.ensure_shape(padded, [size if each == axis else n for each, n in enumerate(x.shape)])
