from dataclasses import replace

import numpy as np
import pytest

from service.artifact import Feature, Features
from service.training import Samples
from service.training.redraw import Redraw
from service.training.vocabulary import make_vocabularies

KIND = {"dtype": "int64", "dimension": 1, "max_history": 9}
FEATURES = Features(
    id=Feature.model_validate({"buckets": 50, **KIND}), tag=Feature.model_validate({"buckets": 9, **KIND})
)


@pytest.fixture
def samples() -> Samples:
    """One user with the history 1, who likes 2, 3 and 4 in turn, each followed by a negative; tags are ids modulo 3."""
    events, zero = np.array([1]), np.zeros(6, np.int64)
    target = np.array([2, 9, 3, 8, 4, 1])
    label = np.array([1, 0, 1, 0, 1, 0], np.float32)
    return Samples(events, events % 3, zero, zero + 1, zero, zero + 1, target, target % 3, label, zero)


def test_negatives_are_new_each_epoch(samples: Samples) -> None:
    """A negative is any item but those liked by then; later likes may be drawn, and nothing but negatives changes."""
    vocabularies = make_vocabularies([samples], FEATURES)
    redraw, seen = Redraw(samples, vocabularies), [set[int](), set[int](), set[int]()]
    ids, tags = vocabularies["id"].row, vocabularies["tag"].row
    bucket = {int(ids[each]): each for each in range(50) if ids[each]}
    for seed in range(200):
        rows = redraw(np.random.default_rng(seed))
        drawn = [bucket[int(each)] for each in rows.target_id]
        np.testing.assert_array_equal(rows.target_tag, tags[np.array(drawn) % 3])
        assert drawn[::2] == [2, 3, 4]
        for found, each in zip(seen, drawn[1::2], strict=True):
            found.add(each)
    assert seen == [{3, 4, 8, 9}, {4, 8, 9}, {8, 9}]


def test_same_draw_by_the_seed(samples: Samples) -> None:
    """Equal generators draw equal negatives."""
    redraw = Redraw(samples, make_vocabularies([samples], FEATURES))
    one, other = (redraw(np.random.default_rng(5)).target_id for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_users_who_liked_everything_end(samples: Samples) -> None:
    """Where every item is liked, the search for another one ends; without any like everything may be drawn."""
    full = replace(samples, target_id=np.array([2, 2, 3, 3, 2, 3]))
    assert len(Redraw(full, make_vocabularies([full], FEATURES))(np.random.default_rng(1))) == 6
    none = replace(full, label=np.zeros(6, np.float32), id_stop=full.id_start)
    assert len(Redraw(none, make_vocabularies([none], FEATURES))(np.random.default_rng(1))) == 6
