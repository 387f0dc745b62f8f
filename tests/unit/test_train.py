from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.artifact import Feature, Features, Quality
from service.errors import DataError
from service.training import Samples, Split, evaluate, fit
from service.training.fit import Fit, State, Task, make_step, predict
from service.training.parts import hash_samples, make_parts, met_ids
from service.training.recipe import Recipe
from service.training.served import to_served
from service.training.start import make_start
from service.training.train import Trained, known_items, make_features, train
from service.training.vocabulary import to_rows

RECIPE = Recipe(id_buckets=64, tag_buckets=16, dimension=4, max_history=4, epochs=2, batch_rows=64, learning_rate=0.02)
QUIET: Any = lambda _: None  # noqa: E731
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


def test_origin_is_recorded(split: Split, trained: Trained) -> None:
    """What travels with the version says on what and how it was trained."""
    found = trained.training
    assert (found.data, found.rows, found.test_rows) == ("drawn", 2400, 400)
    assert (found.batch_rows, found.learning_rate, found.seed) == (64, 0.02, 1)
    assert found.epochs in {1, 2}
    assert found.held_out == split.test.digest() != split.validation.digest()


def test_run_is_reported(trained: Trained, lines: list[str]) -> None:
    """Every epoch is reported with its figures on validation rows, for the network and its twin."""
    for name in ("din", "pooling"):
        own = [line for line in lines if line.startswith(f"{name}, ")]
        assert [line.split(":")[0] for line in own] == [f"{name}, epoch {n}" for n in (1, 2)]
        assert "validation AUC" in own[0]
        assert own[0].endswith(" samples/s")


def test_seed_decides_everything(split: Split, trained: Trained) -> None:
    """Two runs of one seed end with equal weights and figures."""
    again = train(split, RECIPE, QUIET)
    assert again.metrics == trained.metrics
    for one, other in zip(trained.din.variables, again.din.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def make_task(split: Split, recipe: Recipe, **options: Any) -> Task:
    """What a network of the recipe's learns from."""
    features = make_features(split.train, recipe)
    rows = make_parts(split, features, recipe, known=False)
    validation = to_rows(hash_samples(split.validation, features), rows.vocabularies)
    return Task(features, recipe.architecture.model_copy(update=options), rows, recipe.epochs, validation)


@pytest.mark.parametrize(
    ("gauc_after", "patience", "best", "tried"),
    [
        pytest.param([0.5, 0.6, 0.55], 3, 2, 3, id="middle"),
        pytest.param([0.6, 0.6, 0.6], 3, 1, 3, id="first-of-equals"),
        pytest.param([0.5, 0.6, 0.7], 1, 3, 3, id="last"),
        pytest.param([0.6, 0.5, 0.7], 1, 1, 2, id="out-of-patience"),
        pytest.param([0.6, 0.5, 0.7], 2, 3, 3, id="patient"),
    ],
)
def test_epoch_is_chosen_on_validation(
    split: Split, monkeypatch: pytest.MonkeyPatch, gauc_after: list[float], patience: int, best: int, tried: int
) -> None:
    """Training ends without patience; the network is that of the epoch that ranked each user's validation rows best."""
    seen: list[Any] = []

    def quality(label: Any, *_: Any) -> Quality:
        assert len(label) == len(split.validation)
        gauc = gauc_after[len(seen) - 1]
        return Quality(auc=1 - gauc, gauc=gauc, logloss=gauc)

    def look(din: Any, _: Any) -> Any:
        seen.append([each.numpy() for each in din.variables])
        return np.zeros(400)

    monkeypatch.setattr(fit, "predict", look)
    monkeypatch.setattr(evaluate, "quality", quality)
    recipe = RECIPE.model_copy(update={"epochs": 3, "patience": patience})
    fitted = Fit(make_task(split, recipe), recipe, "din", QUIET).run()
    assert (fitted.epochs, len(seen)) == (best, tried)
    for one, other in zip(fitted.din.variables, seen[best - 1], strict=True):
        np.testing.assert_array_equal(one.numpy(), other)


def test_refit_is_as_long_as_was_best(split: Split, lines: list[str], trained: Trained) -> None:
    """After the epochs that were tried, the network is trained again as long as was best, validation rows included."""
    assert f"din trains {trained.training.epochs} epochs on train and validation rows" in lines
    assert len([line for line in lines if line.startswith("din-refit, ")]) == trained.training.epochs


@pytest.mark.parametrize("activation", ["sigmoid", "prelu", "dice"])
def test_activation_is_trained(split: Split, activation: Any) -> None:
    """A network of any activation learns the signal, and every variable of its activations moves."""
    options = {"attention_activation": activation, "head_activation": activation, "softmax": False}
    recipe = RECIPE.model_copy(update={"epochs": 3})
    task = make_task(split, recipe, **options)
    before = State(task, recipe).din.variables
    din = Fit(task, recipe, "din", QUIET).run().din
    answer = predict(din, to_rows(hash_samples(split.test, din.features), task.train.vocabularies))
    assert evaluate.quality(split.test.label, answer, split.test.user).auc > 0.95
    moved = [
        (one.numpy() != other.numpy()).any()
        for one, other in zip(before, din.variables, strict=True)
        if one.name.startswith(("alpha", "mean", "variance"))
    ]
    assert len(moved) == 2 + {"sigmoid": 0, "prelu": 6, "dice": 18}[activation]
    assert all(moved)


def test_loss_that_is_no_number(split: Split) -> None:
    """A learning rate that breaks the network ends the run with a hint, not with a broken version."""
    with pytest.raises(DataError, match="not finite after epoch 1; a lower learning rate may help"):
        train(split, RECIPE.model_copy(update={"learning_rate": 1e30}), QUIET)


def test_weight_that_is_no_number(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight broken by the very last step ends the run too, though no loss has shown it."""
    task = make_task(split, RECIPE)

    def broken(state: State, *_: Any) -> Any:
        step = make_step(state, task, RECIPE)

        def run(*arguments: Any) -> Any:
            loss = step(*arguments)
            state.din.tables["id"].scatter_nd_update([[0, 0]], [np.nan])
            return loss

        return run

    monkeypatch.setattr(fit, "make_step", broken)
    with pytest.raises(DataError, match="not finite after epoch 1"):
        Fit(task, RECIPE, "din", QUIET).run()


def neighbours(rows: int, seed: int) -> Samples:
    """Users click what is numbered near their history; there are so many items that each is hardly ever met twice."""
    rng = np.random.default_rng(seed)
    age, start, target = rng.random(rows), 2 * np.arange(rows), rng.integers(0, 10**6, rows)
    events = (np.repeat(age, 2) * 10**6).astype(np.int64)
    label = (np.abs(age - target / 10**6) < 0.25).astype(np.float32)
    zero = np.zeros(2 * rows, np.int64)
    return Samples(
        events, zero, start, start + 2, start, start + 2, target, zero[:rows], label, rng.integers(0, 9, rows)
    )


@pytest.mark.parametrize(("knots", "auc"), [pytest.param(0, 0.5, id="without"), pytest.param(8, 0.95, id="with")])
def test_numbers_of_ids_tell_of_items_never_met(knots: int, auc: float) -> None:
    """With knots a network ranks items that are met once by the number of their id; without, it knows nothing."""
    learn, choose, report = shared([neighbours(rows, seed) for rows, seed in ((3000, 1), (200, 2), (1000, 3))])
    split = Split(learn, choose, report, source="drawn")
    recipe = RECIPE.model_copy(update={"id_buckets": 1 << 20, "min_count": 9, "id_knots": knots, "epochs": 8})
    task = make_task(split, recipe, product=True)
    assert task.train.vocabularies["id"].embeddings == 1
    din = Fit(task, recipe, "din", QUIET).run().din
    served = to_served(din, task.train.vocabularies)
    answer = predict(served, hash_samples(split.train, din.features))
    assert evaluate.quality(learn.label, answer, learn.user).auc == pytest.approx(auc, abs=0.05)


def test_ids_start_from_clicks(split: Split) -> None:
    """From clicks start both tables of ids and the biases, as the train rows tell, and no other weight."""
    recipe = RECIPE.model_copy(update={"id_start": "clicks"})
    tasks = [make_task(split, each, item_bias=True) for each in (recipe, RECIPE)]
    vocabulary = tasks[0].train.vocabularies["id"]
    item = vocabulary.row[hash_samples(split.train, tasks[0].features).target_id]
    expected = make_start(split.train.user, item, split.train.label, vocabulary.embeddings, 4)
    told, chance = (fit.make_din(task, RECIPE) for task in tasks)
    for one, other in zip(told.variables, chance.variables, strict=True):
        if one.name in {"table_id:0", "target_id:0"}:
            np.testing.assert_array_equal(one.numpy(), expected.embeddings)
        elif one.name == "bias_id:0":
            np.testing.assert_array_equal(one.numpy(), expected.bias)
        else:
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_ids_of_text_share_nothing(split: Split) -> None:
    """Text has no order: knots leave a model of text as it was."""
    text = {"event_id": split.train.event_id.astype(str).astype(object)}
    text["target_id"] = split.train.target_id.astype(str).astype(object)
    recipe = RECIPE.model_copy(update={"id_knots": 8, "id_start": "clicks"})
    whole = replace(split, train=replace(split.train, **text))
    parts = make_parts(whole, make_features(whole.train, recipe), recipe, known=False)
    assert parts.vocabularies["id"].blend is None
    assert parts.start is not None


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
    features = make_features(text, RECIPE)
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
    monkeypatch.setattr(fit, "EVALUATION_ROWS", 7)
    np.testing.assert_allclose(predict(trained.din, part), whole, atol=1e-6)
