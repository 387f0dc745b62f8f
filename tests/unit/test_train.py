from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.artifact import Feature, Features, Quality
from service.errors import DataError
from service.training import Samples, Split, evaluate
from service.training import train as trainer
from service.training.din import Din
from service.training.train import Recipe, Trained, fit, hash_samples, known_items, met_ids, predict, train

RECIPE = Recipe(id_buckets=64, tag_buckets=16, dimension=4, max_history=4, epochs=2, batch_rows=64, learning_rate=0.02)
TAGS, ITEMS = 4, 40  # an item's tag is its id modulo TAGS


def draw(rows: int, seed: int) -> Samples:
    """Users click what has the tag of their history, whichever item it is: popularity knows nothing of it."""
    rng = np.random.default_rng(seed)
    taste, target = rng.integers(0, TAGS, rows), rng.integers(0, ITEMS, rows)
    start = 2 * np.arange(rows)
    events = np.repeat(taste, 2) + TAGS * rng.integers(0, ITEMS // TAGS, 2 * rows)
    return Samples(
        event_id=events,
        event_tag=events % TAGS,
        id_start=start,
        id_stop=start + rng.integers(1, 3, rows),
        tag_start=start,
        tag_stop=start + 2,
        target_id=target,
        target_tag=target % TAGS,
        label=(target % TAGS == taste).astype(np.float32),
        user=rng.integers(0, 20, rows),
    )


def shared(parts: list[Samples]) -> Iterator[Samples]:
    """The same samples over common event arrays, as the reader makes them."""
    events = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("event_id", "event_tag")}
    offset = 0
    for part in parts:
        moved = {name: getattr(part, name) + offset for name in ("id_start", "id_stop", "tag_start", "tag_stop")}
        yield replace(part, **events, **moved)
        offset += len(part.event_id)


@pytest.fixture(scope="module")
def split() -> Split:
    """Samples whose label is whether the target's tag is that of the history."""
    learn, choose, report = shared([draw(rows, seed) for rows, seed in ((2000, 1), (400, 2), (400, 3))])
    return Split(learn, choose, report, source="drawn")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What the run behind `trained` reported."""
    return []


@pytest.fixture(scope="module")
def trained(split: Split, lines: list[str]) -> Trained:
    """One run."""
    return train(split, RECIPE, lines.append)


def hashed(part: Samples, run: Trained) -> Samples:
    """Samples as the run's network takes them."""
    return hash_samples(part, run.din.features)


def test_network_learns(trained: Trained) -> None:
    """DIN ranks a clear signal nearly perfectly, and popularity, which cannot see it, does not."""
    assert trained.metrics.keys() == {"din", "pooling", "popularity"}
    assert trained.metrics["din"].auc > 0.95
    assert trained.metrics["din"].gauc > 0.95
    assert trained.metrics["din"].logloss < 0.4
    assert trained.metrics["popularity"].auc < 0.6


def test_metrics_are_the_networks_own(split: Split, trained: Trained) -> None:
    """The figures stored with a version are those of its network on the test rows."""
    answer = predict(trained.din, hashed(split.test, trained))
    assert evaluate.quality(split.test.label, answer, split.test.user) == trained.metrics["din"]


def test_scores_are_the_networks_own(split: Split, trained: Trained) -> None:
    """The scores stored with a version are those of its network on the test rows, beside how many were clicked."""
    answer = predict(trained.din, hashed(split.test, trained))
    assert trained.scores.rows == len(split.test)
    assert trained.scores.clicks == pytest.approx(split.test.label.mean())
    for bound, below in zip(trained.scores.bounds, np.cumsum(trained.scores.shares), strict=True):
        assert below == pytest.approx(np.mean(answer <= bound))


def test_origin_is_recorded(trained: Trained) -> None:
    """What travels with the version says on what and how it was trained."""
    found = trained.training
    assert (found.data, found.rows, found.test_rows) == ("drawn", 2400, 400)
    assert (found.batch_rows, found.learning_rate, found.seed) == (64, 0.02, 1)
    assert found.epochs in {1, 2}


def test_run_is_reported(trained: Trained, lines: list[str]) -> None:
    """Every epoch is reported with its figures on validation rows, for the network and its twin."""
    for pooling in ("attention", "mean"):
        own = [line for line in lines if line.startswith(f"{pooling} pooling")]
        assert [line.split(":")[0] for line in own[:2]] == [f"{pooling} pooling, epoch {n}" for n in (1, 2)]
        assert "validation AUC" in own[0]


def test_seed_decides_everything(split: Split, trained: Trained) -> None:
    """Two runs of one seed end with equal weights and figures."""
    again = train(split, RECIPE, lambda _: None)
    assert again.metrics == trained.metrics
    for one, other in zip(trained.din.variables, again.din.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize(
    ("loss_after", "epochs"),
    [
        pytest.param([0.5, 0.4, 0.45], 2, id="middle"),
        pytest.param([0.4, 0.4, 0.4], 1, id="first-of-equals"),
        pytest.param([0.5, 0.4, 0.3], 3, id="last"),
    ],
)
def test_epoch_is_chosen_on_validation(
    split: Split, monkeypatch: pytest.MonkeyPatch, loss_after: list[float], epochs: int
) -> None:
    """The network is trained as many epochs as predicted validation rows best, on train and validation rows."""
    fitted: list[tuple[int, int]] = []

    def fit(din: Any, samples: Samples, recipe: Recipe) -> Iterator[Any]:
        fitted.append((len(samples), recipe.epochs))
        yield from [din] * recipe.epochs

    def quality(label: Any, *_: Any) -> Quality:
        assert len(label) == len(split.validation)
        loss = losses.pop(0)
        return Quality(auc=1 - loss, gauc=1 - loss, logloss=loss)

    losses = list(loss_after)
    monkeypatch.setattr(trainer, "fit", fit)
    monkeypatch.setattr(trainer, "predict", lambda *_: np.zeros(400))
    monkeypatch.setattr(evaluate, "quality", quality)
    recipe, features = replace(RECIPE, epochs=3), trainer._features(split.train, RECIPE)
    chosen = trainer._fit_and_refit(features, RECIPE.architecture, split, recipe, lambda _: None)
    assert chosen[1] == epochs
    assert fitted == [(2000, 3), (2400, epochs)]


@pytest.mark.parametrize("activation", ["sigmoid", "prelu", "dice"])
def test_activation_is_trained(split: Split, activation: Any) -> None:
    """A network of any activation learns the signal, and every variable of its activations moves."""
    options = {"attention_activation": activation, "head_activation": activation, "softmax": False}
    din = Din(trainer._features(split.train, RECIPE), RECIPE.architecture.model_copy(update=options), seed=1)
    before = {id(each): each.numpy() for each in din.variables}
    for _ in fit(din, hash_samples(split.train, din.features), replace(RECIPE, epochs=3)):
        pass
    answer = predict(din, hash_samples(split.test, din.features))
    assert evaluate.quality(split.test.label, answer, split.test.user).auc > 0.95
    moved = [each for each in din.variables if each.name.startswith(("alpha", "mean", "variance"))]
    assert len(moved) == 2 + {"sigmoid": 0, "prelu": 6, "dice": 18}[activation]
    assert all((each.numpy() != before[id(each)]).any() for each in moved)


def test_loss_that_is_no_number(split: Split) -> None:
    """A learning rate that breaks the network ends the run with a hint, not with a broken version."""
    with pytest.raises(DataError, match="not finite after epoch 1; a lower learning rate may help"):
        train(split, replace(RECIPE, learning_rate=1e30), lambda _: None)


def test_weight_that_is_no_number(split: Split) -> None:
    """A weight broken by the very last step ends the run too, though no loss has shown it."""
    din = Din(trainer._features(split.train, RECIPE), RECIPE.architecture, seed=1)
    part = hash_samples(split.train, din.features)
    unseen = np.setdiff1d(np.arange(64), [*part.event_id, *part.target_id])
    din.tables["id"].scatter_nd_update([[unseen[0], 0]], [np.nan])
    with pytest.raises(DataError, match="not finite after epoch 1"):
        next(fit(din, part, RECIPE))


def test_hashing_keeps_everything_else(split: Split) -> None:
    """Hashed samples hold buckets in range, and text falls where its integers do."""
    kind = {"dtype": "int64", "dimension": 1, "max_history": 1}
    features = Features(
        id=Feature.model_validate({"buckets": 64, **kind}), tag=Feature.model_validate({"buckets": 16, **kind})
    )
    part = split.test
    ids = np.array([str(each).encode() for each in part.target_id], object)
    numbers, text = hash_samples(part, features), hash_samples(replace(part, target_id=ids), features)
    np.testing.assert_array_equal(numbers.target_id, text.target_id)
    assert 0 <= numbers.event_id.min() <= numbers.event_id.max() < 64
    assert numbers.target_tag.max() < 16
    assert numbers.label is part.label


def test_text_makes_a_text_model(split: Split) -> None:
    """A column of text becomes a feature of text, beside one of integers."""
    text = replace(split.train, target_tag=split.train.target_tag.astype(str).astype(object))
    features = trainer._features(text, RECIPE)
    assert (features.id.dtype, features.tag.dtype) == ("int64", "string")
    assert (features.id.buckets, features.tag.buckets, features.id.max_history) == (64, 16, 4)


def test_known_items_are_pairs(split: Split) -> None:
    """The items that golden requests are drawn from come once each, ascending, with a tag of their own."""
    ids, tags = known_items(split.train)
    assert ids.tolist() == sorted(set(split.train.target_id.tolist()))
    np.testing.assert_array_equal(tags, ids % TAGS)


def test_met_ids_are_targets_and_histories(split: Split) -> None:
    """Ids are met as targets and in the histories of these samples, not of others that share the event arrays."""
    part = replace(split.train.take(np.arange(5)), target_id=np.arange(100, 105))
    inside = [part.event_id[start:stop] for start, stop in zip(part.id_start, part.id_stop, strict=True)]
    assert met_ids(part).tolist() == sorted({*range(100, 105), *np.concatenate(inside).tolist()})
    assert len(met_ids(part)) < len(np.unique(part.event_id)) + 5


def test_met_ids_may_be_text(split: Split) -> None:
    """Ids of text are met as well, and a sample without history adds none."""
    text = split.test.event_id.astype(str).astype(object)
    part = replace(split.test, event_id=text, target_id=split.test.target_id.astype(str).astype(object))
    assert met_ids(part).tolist() == sorted(map(str, met_ids(split.test).tolist()))
    bare = replace(part, id_stop=part.id_start)
    assert met_ids(bare).tolist() == sorted(set(part.target_id.tolist()))


def test_prediction_ignores_company(split: Split, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicting in small batches, each padded to its own longest history, gives the same probabilities in order."""
    part = hashed(split.test, trained)
    whole = predict(trained.din, part)
    monkeypatch.setattr(trainer, "EVALUATION_ROWS", 7)
    np.testing.assert_allclose(predict(trained.din, part), whole, atol=1e-6)
