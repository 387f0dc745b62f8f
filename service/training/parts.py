"""The training rows of a split as a fit takes them: in parts, loaded when they are needed, values as rows of tables."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.artifact import Features
from service.batch import Ids
from service.training import Samples, Split
from service.training.din import to_bucket
from service.training.recipe import Recipe
from service.training.redraw import Redraw
from service.training.vocabulary import Vocabulary, make_vocabularies, to_rows

Part = Callable[[], Samples]


@dataclass(frozen=True, slots=True)
class Parts:
    """Training rows, one part or many."""

    parts: Sequence[Part]  # each call loads one; the only one stays loaded
    sizes: Sequence[int]  # rows of each
    clicks: float  # among all of them
    vocabularies: dict[str, Vocabulary]
    redraw: Redraw | None = None  # gives the only part its negatives for an epoch

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(self.sizes)


def make_parts(split: Split, features: Features, recipe: Recipe, *, known: bool) -> Parts:
    """Those of the train rows, or of train and validation rows together where they are all `known`.

    Every part is loaded once, for the vocabularies; of many, one at a time is held, and none is given new negatives.
    """
    first = hash_samples(split.known if known else split.train, features)
    hashing: list[Part] = [lambda: first, *(partial(_load, load, features) for load in split.parts[1:])]
    sizes, clicks = [], []

    def hashed() -> Iterator[Samples]:
        for load in hashing:
            samples = load()
            sizes.append(len(samples))
            clicks.append(float(samples.label.sum()))
            yield samples

    vocabularies = make_vocabularies(hashed(), features, recipe.min_count, recipe.counted)
    parts = [partial(_load_rows, load, vocabularies) for load in hashing]
    if len(parts) == 1:
        only, redrawn = parts[0](), recipe.resample == "all" or (recipe.resample == "drawn" and split.negatives > 0)
        redraw = Redraw(_by_user(first), vocabularies) if redrawn else None
        return Parts([lambda: only], sizes, sum(clicks), vocabularies, redraw)
    return Parts(parts, sizes, sum(clicks), vocabularies)


def _load(load: Part, features: Features) -> Samples:
    return hash_samples(load(), features)


def _load_rows(load: Part, vocabularies: dict[str, Vocabulary]) -> Samples:
    """A part as rows of tables."""
    return to_rows(load(), vocabularies)


def _by_user(samples: Samples) -> Samples:
    """In order of the users; validation rows, which follow the train rows, are the later ones of theirs."""
    return samples.take(np.argsort(samples.user, kind="stable"))


def hash_samples(samples: Samples, features: Features) -> Samples:
    """Replace ids and tags by their buckets, once for the whole training instead of once a step."""
    return replace(
        samples,
        event_id=_hash(samples.event_id, features.id.buckets),
        event_tag=_hash(samples.event_tag, features.tag.buckets),
        target_id=_hash(samples.target_id, features.id.buckets),
        target_tag=_hash(samples.target_tag, features.tag.buckets),
    )


def _hash(values: Ids, buckets: int) -> NDArray[np.int32]:
    unique, where = np.unique(values, return_inverse=True)
    dtype: Any = tf.string if values.dtype == object else tf.int64
    hashed: NDArray[np.int32] = to_bucket(tf.constant(unique, dtype), buckets).numpy().astype(np.int32)[where]
    return hashed
