"""Fit a network to samples, choosing the epoch on validation rows, and report on test rows once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from service.artifact import Architecture, Feature, Features, Quality, Training
from service.batch import Floats, Ids
from service.drift import Scores, make_scores
from service.errors import DataError
from service.training import Samples, Split, evaluate
from service.training.data import gather
from service.training.din import Din, Rows, graph, to_bucket
from service.training.layers import Tensor

EVALUATION_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a training run is told."""

    architecture: Architecture = field(default_factory=Architecture)
    dimension: int = 8
    id_buckets: int = 1 << 16
    tag_buckets: int = 1 << 8
    max_history: int = 50
    epochs: int = 3
    batch_rows: int = 256
    learning_rate: float = 2e-3
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Trained:
    """The chosen network and what is known of it."""

    din: Din
    training: Training
    metrics: dict[str, Quality]  # on test rows: din, pooling, popularity
    scores: Scores  # of the test rows


def train(split: Split, recipe: Recipe, report: Callable[[str], None] = print) -> Trained:
    """Train a DIN and its mean-pooling twin, and compare both with item popularity on the test rows.

    The same seed, data and machine give the same weights.

    Raises:
        DataError: the loss is not finite.
    """
    tf.config.experimental.enable_op_determinism()
    features = _features(split.train, recipe)
    parts: dict[str, Any] = {
        name: hash_samples(getattr(split, name), features) for name in ("train", "validation", "test")
    }
    hashed = replace(split, **parts)
    metrics, chosen, scored = {}, {}, {}
    for name, pooling in (("din", "attention"), ("pooling", "mean")):
        architecture = recipe.architecture.model_copy(update={"pooling": pooling})
        chosen[name] = _fit_and_refit(features, architecture, hashed, recipe, report)
        scored[name] = predict(chosen[name][0], hashed.test)
        metrics[name] = evaluate.quality(split.test.label, scored[name], split.test.user)
    popularity = evaluate.popularity(split.known, split.test)
    metrics["popularity"] = evaluate.quality(split.test.label, popularity, split.test.user)
    din, epochs = chosen["din"]
    training = Training(
        data=split.source,
        rows=len(split.known),
        test_rows=len(split.test),
        epochs=epochs,
        batch_rows=recipe.batch_rows,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
    )
    return Trained(din, training, metrics, make_scores(scored["din"], split.test.label))


def _fit_and_refit(
    features: Features, architecture: Architecture, split: Split, recipe: Recipe, report: Callable[[str], None]
) -> tuple[Din, int]:
    """Find the epoch with the highest validation AUC, then train that long on train and validation rows together.

    The validation rows are the newest known ones: a model that never learns from them is stale on the day it is made.
    """
    auc_after = []
    for epoch, din in enumerate(fit(Din(features, architecture, recipe.seed), split.train, recipe), 1):
        quality = evaluate.quality(split.validation.label, predict(din, split.validation), split.validation.user)
        figures = f"AUC {quality.auc:.4f} GAUC {quality.gauc:.4f} logloss {quality.logloss:.4f}"
        report(f"{architecture.pooling} pooling, epoch {epoch}: validation {figures}")
        auc_after.append(quality.auc)
    epochs = int(np.argmax(auc_after)) + 1
    report(f"{architecture.pooling} pooling trains {epochs} epochs on train and validation rows")
    *_, din = fit(Din(features, architecture, recipe.seed), split.known, replace(recipe, epochs=epochs))
    return din, epochs


def fit(din: Din, samples: Samples, recipe: Recipe) -> Iterator[Din]:
    """Train `din` in place for `recipe.epochs` epochs of hashed samples, yielding it after each."""
    step = _step(din, recipe.learning_rate)
    rng = np.random.default_rng(recipe.seed)
    for epoch in range(1, recipe.epochs + 1):
        loss = np.float32(0)
        for rows, label in _batches(samples, rng.permutation(len(samples)), recipe.batch_rows, f"epoch {epoch}"):
            loss = step(rows, label)
        # The loss precedes its step, and relu hides NaN: what the last step did shows in the weights only.
        if not all(np.isfinite(each).all() for each in (loss, *din.variables)):
            raise DataError(f"loss or weights are not finite after epoch {epoch}; a lower learning rate may help")
        yield din


def predict(din: Din, samples: Samples) -> Floats:
    """Click probabilities (N,) of hashed samples, in order."""
    forward = graph(lambda rows: tf.sigmoid(din.logits(rows)), reduce_retracing=True)
    order = np.arange(len(samples))
    return np.concatenate([forward(rows).numpy() for rows, _ in _batches(samples, order, EVALUATION_ROWS)])


def hash_samples(samples: Samples, features: Features) -> Samples:
    """Replace ids and tags by their buckets, once for the whole training instead of once a step."""
    return replace(
        samples,
        event_id=_hash(samples.event_id, features.id.buckets),
        event_tag=_hash(samples.event_tag, features.tag.buckets),
        target_id=_hash(samples.target_id, features.id.buckets),
        target_tag=_hash(samples.target_tag, features.tag.buckets),
    )


def known_items(samples: Samples) -> tuple[Ids, Ids]:
    """Every id among the targets, ascending, and a tag of each."""
    ids, first = np.unique(samples.target_id, return_index=True)
    return ids, samples.target_tag[first]


def met_ids(samples: Samples) -> Ids:
    """Every id among the targets and in the histories, ascending."""
    edges = np.zeros(len(samples.event_id) + 1, np.int64)
    np.add.at(edges, samples.id_start, 1)
    np.add.at(edges, samples.id_stop, -1)
    in_history = np.cumsum(edges[:-1]) > 0
    return np.unique(np.concatenate([samples.target_id, samples.event_id[in_history]]))


def _hash(values: Ids, buckets: int) -> NDArray[np.int32]:
    unique, where = np.unique(values, return_inverse=True)
    dtype = tf.string if values.dtype == object else tf.int64
    hashed: NDArray[np.int32] = to_bucket(tf.constant(unique, dtype), buckets).numpy().astype(np.int32)[where]
    return hashed


def _features(samples: Samples, recipe: Recipe) -> Features:
    def feature(values: Ids, buckets: int) -> Feature:
        dtype: Any = "string" if values.dtype == object else "int64"
        return Feature(dtype=dtype, buckets=buckets, dimension=recipe.dimension, max_history=recipe.max_history)

    return Features(
        id=feature(samples.target_id, recipe.id_buckets), tag=feature(samples.target_tag, recipe.tag_buckets)
    )


def _step(din: Din, learning_rate: float) -> Callable[[Rows, Tensor], Tensor]:
    """One step of Adam (Kingma and Ba, 2015) on the mean logloss of a batch; returns that loss."""
    optimizer = keras.optimizers.Adam(learning_rate)

    def step(rows: Rows, label: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            logits = din.logits(rows, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    variables = din.trainable_variables
    optimizer.build(variables)
    compiled: Callable[[Rows, Tensor], Tensor] = graph(step, reduce_retracing=True)
    return compiled


def _batches(
    samples: Samples, order: NDArray[np.int64], rows: int, title: str | None = None
) -> Iterator[tuple[Rows, Floats]]:
    """Mini-batches of samples in `order`, histories padded to the batch's longest."""
    starts = range(0, len(order), rows)
    for start in tqdm(starts, desc=title, unit="batch", disable=None if title else True, leave=False):
        *arrays, label = gather(samples, order[start : start + rows])
        yield Rows(*(tf.constant(each) for each in arrays)), label
