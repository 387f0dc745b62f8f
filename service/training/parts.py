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
from service.training.blend import places
from service.training.din import to_bucket
from service.training.recipe import Recipe
from service.training.redraw import Redraw
from service.training.runs import covered
from service.training.start import Start, make_start
from service.training.vocabulary import Vocabulary, make_vocabularies, to_rows

Part = Callable[[], Samples]


@dataclass(frozen=True, slots=True)
class Parts:
    """Training rows, one part or many."""

    parts: Sequence[Part]  # each call loads one
    sizes: Sequence[int]  # rows of each
    clicks: float  # among all of them
    vocabularies: dict[str, Vocabulary]
    redraw: Redraw | None = None  # gives the only part its negatives for an epoch
    start: Start | None = None  # of ids; None: by chance

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(self.sizes)


def make_parts(split: Split, features: Features, recipe: Recipe, *, known: bool) -> Parts:
    """Those of the train rows, or of train and validation rows together where they are all `known`.

    Every part is loaded once, for the vocabularies; of many, one at a time is held, none is given new negatives, and
    where embeddings start from clicks, those of the first part tell.
    """
    whole = split.known if known else split.train
    first = hash_samples(whole, features)
    loads: list[Part] = [lambda: whole, *split.parts[1:]]
    sizes, clicks = [], []
    met = whole.target_id[:0]

    def hashed() -> Iterator[Samples]:
        nonlocal met
        for load in loads:
            samples = load()
            sizes.append(len(samples))
            clicks.append(float(samples.label.sum()))
            met = np.union1d(met, met_ids(samples)) if recipe.id_knots else met
            yield first if samples is whole else hash_samples(samples, features)

    vocabularies = make_vocabularies(
        hashed(), features, recipe.min_count, recipe.counted, lambda: _id_places(met, features), recipe.id_knots
    )
    start = _start(first, vocabularies["id"], recipe) if recipe.id_start == "clicks" else None
    parts: list[Part] = [partial(to_rows, first, vocabularies)]
    parts += [partial(_load_rows, load, features, vocabularies) for load in loads[1:]]
    redraw = Redraw(_by_user(first), vocabularies) if len(parts) == 1 and _is_redrawn(split, recipe) else None
    return Parts(parts, sizes, sum(clicks), vocabularies, redraw, start)


def met_ids(samples: Samples) -> Ids:
    """Every id among the targets and in the histories, ascending."""
    in_history = covered(samples.id_start, samples.id_stop, len(samples.event_id)) > 0
    return np.unique(np.concatenate([samples.target_id, samples.event_id[in_history]]))


def _id_places(met: Ids, features: Features) -> NDArray[np.float64] | None:
    """The place of each bucket among the ids met; text has no order that means anything."""
    if met.dtype == object:
        return None
    return places(met, _hash(met, features.id.buckets), features.id.buckets)


def _start(samples: Samples, vocabulary: Vocabulary, recipe: Recipe) -> Start:
    """What ids start from, of hashed samples."""
    item = vocabulary.own(vocabulary.row[samples.target_id])
    return make_start(samples.user, item, samples.label, vocabulary.embeddings, recipe.dimension)


def _is_redrawn(split: Split, recipe: Recipe) -> bool:
    return recipe.resample == "all" or (recipe.resample == "drawn" and split.negatives > 0)


def _load_rows(load: Part, features: Features, vocabularies: dict[str, Vocabulary]) -> Samples:
    """A part as rows of tables."""
    return to_rows(hash_samples(load(), features), vocabularies)


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
