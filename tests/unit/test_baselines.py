from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from service.training import Samples, baselines
from tests.labelled import make_samples


def test_item_mean_by_hand() -> None:
    """An item's click rate counts beside five rows at the mean of all; an unknown item has the mean itself."""
    train = make_samples(item=[1, 1, 1, 2], label=[1, 1, 0, 1])
    test = make_samples(item=[1, 2, 9], label=[0, 0, 1])
    expected = [(2 + 5 * 0.75) / (3 + 5), (1 + 5 * 0.75) / (1 + 5), 0.75]
    assert baselines.item_mean(train, test) == pytest.approx(expected)


@pytest.mark.parametrize("slab", [pytest.param(2, id="several-slabs"), pytest.param(100, id="one-slab")])
def test_tag_share_by_hand(slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the history's tags that are the target's, and 0 for who has none."""
    monkeypatch.setattr(baselines, "SLAB", slab)
    samples = make_samples(item=[1, 2, 3], label=[0, 1, 0], tag=[7, 8, 7], history=[[], [8, 7, 8], [9, 7]])
    assert baselines.tag_share(samples) == pytest.approx([0, 2 / 3, 1 / 2])


def test_features_leave_the_row_out() -> None:
    """A training row counts neither itself nor its label; a test row meets all of the training."""
    train = make_samples(item=[1, 1, 2], label=[1, 0, 1], history=[[], [5], [5, 5]])
    own, other = baselines.features(train, make_samples(item=[1, 9], label=[1, 1]))
    assert np.expm1(own[:, 0]) == pytest.approx([1, 1, 0])
    assert np.expm1(other[:, 0]) == pytest.approx([2, 0])
    prior = 5 * 2 / 3
    assert 1 / (1 + np.exp(-own[:, 1])) == pytest.approx([prior / 6, (1 + prior) / 6, prior / 5])
    assert np.expm1(own[:, 3]) == pytest.approx([0, 1, 2])


def _taste(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    likes, tag = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    label = (rng.random(400) < np.where(likes == tag, 0.8, 0.2)).astype(int)
    return make_samples(
        item=rng.integers(0, 20, 400).tolist(),
        label=label.tolist(),
        tag=tag.tolist(),
        history=[[each] * 3 for each in likes.tolist()],
    )


def test_text_is_as_good_as_numbers() -> None:
    """Ids and tags that are text give the probabilities that numbers do."""

    def as_text(samples: Samples) -> Samples:
        names = ("event_id", "event_tag", "target_id", "target_tag")
        columns = {name: [b"%d" % each for each in getattr(samples, name)] for name in names}
        return replace(samples, **{name: np.array(column, object) for name, column in columns.items()})

    train, test = _taste(1), _taste(2)
    for baseline in baselines.BASELINES.values():
        assert baseline(as_text(train), as_text(test)) == pytest.approx(baseline(train, test))


def test_logistic_regression_sees_the_user() -> None:
    """Where clicks follow the tags of the history it ranks well, and the item's counts know nothing."""
    train, test = _taste(1), _taste(2)
    assert roc_auc_score(test.label, baselines.logistic_regression(train, test)) > 0.7
    assert roc_auc_score(test.label, baselines.item_mean(train, test)) < 0.6
    for baseline in baselines.BASELINES.values():
        probability = baseline(train, test)
        assert probability.dtype == np.float32
        assert ((probability > 0) & (probability < 1)).all()
