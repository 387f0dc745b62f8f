"""From a split to a trained network and what is known of it: fit, refit, calibration, figures on test rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from service.artifact import Architecture, Feature, Features, Quality, Training
from service.batch import Floats, Ids
from service.drift import Scores, make_scores
from service.training import Samples, Split, evaluate
from service.training.calibration import Calibration, fit_platt, prior_shift
from service.training.checkpoints import Folder
from service.training.din import Din
from service.training.fit import Fit, Fitted, Task, predict, predict_logits
from service.training.logs import Logs
from service.training.parts import Parts, hash_samples, make_parts
from service.training.recipe import Recipe
from service.training.served import to_served
from service.training.vocabulary import to_rows


@dataclass(frozen=True, slots=True)
class Trained:
    """The chosen network and what is known of it."""

    din: Din  # as it serves
    training: Training
    metrics: dict[str, Quality]  # on test rows: din, pooling, popularity
    scores: Scores  # of the test rows

    def predict(self, samples: Samples) -> Floats:
        """Click probabilities (N,) as they are served."""
        return predict(self.din, hash_samples(samples, self.din.features))


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a run leaves on its way."""

    checkpoints: Folder = field(default_factory=Folder)
    resume: bool = False
    logs: Path | None = None


def train(
    split: Split, recipe: Recipe, report: Callable[[str], None] = print, keeping: Keeping | None = None
) -> Trained:
    """Train a network and, as the recipe says, its mean-pooling twin; compare with item popularity on the test rows.

    The same seed, data and machine give the same weights, whether a run was killed and resumed or not.

    Raises:
        DataError: the loss is not finite; or what is to be resumed is of something else.
    """
    tf.config.experimental.enable_op_determinism()
    keeping = keeping or Keeping()
    keeping.checkpoints.open(split, recipe, resume=keeping.resume)
    run = _Run(split, recipe, report, keeping)
    din, fitted, calibration = run.train("din", recipe.architecture)
    served = {"din": din}
    if recipe.twin and recipe.architecture.pooling != "mean":
        served["pooling"] = run.train("pooling", recipe.architecture.model_copy(update={"pooling": "mean"}))[0]
    logits = {name: predict_logits(each, run.test) for name, each in served.items()}
    label, user = split.test.label, split.test.user
    # Test rows have their negatives drawn as training rows do, so their logloss is of log-odds before the correction.
    metrics = {name: evaluate.quality(label, _sigmoid(each - run.correction), user) for name, each in logits.items()}
    metrics["popularity"] = evaluate.quality(label, evaluate.popularity(split.known, split.test), user)
    training = Training(
        data=split.source,
        rows=run.train_rows.rows + len(split.validation),
        test_rows=len(split.test),
        held_out=split.test.digest(),
        epochs=fitted.epochs,
        batch_rows=recipe.batch_rows,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        recipe=recipe.model_dump(mode="json"),
        samples_per_s=round(fitted.samples_per_s, 1),
        scale=calibration.scale,
        shift=calibration.shift,
    )
    return Trained(din, training, metrics, make_scores(_sigmoid(logits["din"]), label))


class _Run:
    """What the networks of one run have in common."""

    def __init__(self, split: Split, recipe: Recipe, report: Callable[[str], None], keeping: Keeping) -> None:
        self.split, self.recipe, self.report, self.keeping = split, recipe, report, keeping
        self.features = make_features(split.train, recipe)
        self.train_rows = make_parts(split, self.features, recipe, known=False)
        self.validation = hash_samples(split.validation, self.features)
        self.test = hash_samples(split.test, self.features)

    @property
    def correction(self) -> float:
        """What is added to log-odds because negatives were drawn."""
        real = self.split.click_rate
        if not self.recipe.correct_sampling or real is None:
            return 0.0
        return prior_shift(self.train_rows.clicks / self.train_rows.rows, real)

    def train(self, name: str, architecture: Architecture) -> tuple[Din, Fitted, Calibration]:
        """Fit, calibrate and perhaps refit one network: as it serves, how it was fitted, and its calibration.

        The refit is as long as was best, on train and validation rows: the validation rows are the newest known ones,
        and a model that never learns from them is stale on the day it is made. Its calibration is that of the network
        before it, which did not learn from them.
        """
        rows = self.train_rows
        fitted = self._fit(name, architecture, rows, self.recipe.epochs, to_rows(self.validation, rows.vocabularies))
        calibration = self._calibrate(fitted.din, rows)
        if self.recipe.refit:
            self.report(f"{name} trains {fitted.epochs} epochs on train and validation rows")
            rows = make_parts(self.split, self.features, self.recipe, known=True)
            fitted = self._fit(f"{name}-refit", architecture, rows, fitted.epochs, None)
        din = to_served(fitted.din, rows.vocabularies, calibration.scale, calibration.shift)
        return din, fitted, calibration

    def _fit(
        self, name: str, architecture: Architecture, rows: Parts, epochs: int, validation: Samples | None
    ) -> Fitted:
        task = Task(self.features, architecture, rows, epochs, validation)
        logs = Logs(self.keeping.logs / name if self.keeping.logs else None)
        return Fit(task, self.recipe, name, self.report, self.keeping.checkpoints.of(name), logs).run()

    def _calibrate(self, din: Din, rows: Parts) -> Calibration:
        """From validation rows where the recipe says so, else what the recipe itself did to the log-odds undone."""
        calibration = Calibration(shift=-math.log(self.recipe.positive_weight))
        if self.recipe.calibrate:
            logits = predict_logits(din, to_rows(self.validation, rows.vocabularies))
            calibration = fit_platt(logits, self.validation.label) or calibration
        return calibration.shifted(self.correction)


def known_items(samples: Samples) -> tuple[Ids, Ids]:
    """Every id among the targets, ascending, and a tag of each."""
    ids, first = np.unique(samples.target_id, return_index=True)
    return ids, samples.target_tag[first]


def make_features(samples: Samples, recipe: Recipe) -> Features:
    """How the values of these samples are hashed and embedded; text is told from integers."""

    def feature(values: Ids, buckets: int) -> Feature:
        dtype: Any = "string" if values.dtype == object else "int64"
        return Feature(dtype=dtype, buckets=buckets, dimension=recipe.dimension, max_history=recipe.max_history)

    return Features(
        id=feature(samples.target_id, recipe.id_buckets), tag=feature(samples.target_tag, recipe.tag_buckets)
    )


def _sigmoid(logits: Floats) -> Floats:
    probability: Floats = tf.sigmoid(logits.astype(np.float32)).numpy()
    return probability
