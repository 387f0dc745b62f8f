import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DataError
from service.training import Samples, data

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
MOVIELENS = SHARED / "ml-latest-small"
NEXT_ITEM = SHARED / "next_item_samples.parquet"


def _history(samples: Samples, row: int) -> tuple[list[Any], list[Any]]:
    return (
        samples.event_id[samples.id_start[row] : samples.id_stop[row]].tolist(),
        samples.event_tag[samples.tag_start[row] : samples.tag_stop[row]].tolist(),
    )


def _ready(path: Path, **change: Any) -> Path:
    """Ready-made samples of one user: three pairs to train on, the last of them validation, and one to test."""
    columns = {
        "user": ["u"] * 8,
        "history_ids": [[], [], [1], [1], [1, 2], [1, 2], [1, 2, 3], [1, 2, 3]],
        "history_tags": [[], [], ["a", "b"], ["a", "b"], ["a"], ["a"], ["c"] * 4, ["c"] * 4],
        "id": [1, 9, 2, 9, 3, 9, 4, 9],
        "tag": ["a", "z"] * 4,
        "label": [1, 0] * 4,
        "split": ["train"] * 6 + ["test"] * 2,
    }
    pl.DataFrame(columns | change).write_parquet(path)
    return path


def _interactions(path: Path, users: int, each: int, **change: Any) -> Path:
    rows = [(user, 100 + (user * 3 + i) % 50, i % 4, i) for i in range(each) for user in range(users)]
    frame = pl.DataFrame(rows, schema=["user", "item", "tag", "timestamp"], orient="row")
    frame.with_columns(**change).write_csv(path)
    return path


def test_load_interactions(tmp_path: Path) -> None:
    """Of ten pairs a user the last two are for testing and the one before them is for validation."""
    split = data.load(_interactions(tmp_path / "log.csv", users=3, each=10), seed=1)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [3 * 14, 3 * 2, 3 * 4]
    assert split.source == "interactions log.csv"
    assert split.test.target_id[::2].tolist() == [108, 109, 111, 112, 114, 115]
    assert _history(split.validation, 0) == ([100, 101, 102, 103, 104, 105, 106], [0, 1, 2, 3, 0, 1, 2])


def test_load_keeps_newest_history(tmp_path: Path) -> None:
    """No history is longer than asked for; what is left is the newest."""
    split = data.load(_interactions(tmp_path / "log.csv", users=3, each=10), seed=1, max_history=2)
    assert _history(split.validation, 0)[0] == [105, 106]


def test_load_ready_made(tmp_path: Path) -> None:
    """Ready-made samples keep their split, and the two histories their own lengths."""
    split = data.load(_ready(tmp_path / "log.parquet"), seed=1)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [4, 2, 2]
    assert _history(split.train, 0) == ([], [])
    assert _history(split.train, 2) == ([1], [b"a", b"b"])
    assert _history(split.validation, 1) == ([1, 2], [b"a"])
    assert _history(split.test, 0) == ([1, 2, 3], [b"c"] * 4)
    assert split.test.target_tag.tolist() == [b"a", b"z"]
    assert split.source == "samples log.parquet"


def test_load_ready_made_truncates(tmp_path: Path) -> None:
    """Longer ready-made histories keep their newest part."""
    split = data.load(_ready(tmp_path / "log.parquet"), seed=1, max_history=2)
    assert _history(split.test, 0) == ([2, 3], [b"c"] * 2)


def test_load_ready_made_sorts_by_user(tmp_path: Path) -> None:
    """Users whose rows are mixed are put side by side, each in the file's order."""
    users = [7, 5]
    frame = pl.read_parquet(_ready(tmp_path / "log.parquet"))
    mixed = pl.concat([frame.with_columns(user=pl.lit(user), row=pl.int_range(8)) for user in users]).sort(
        "row", maintain_order=True
    )
    mixed.write_parquet(tmp_path / "log.parquet")
    split = data.load(tmp_path / "log.parquet", seed=1)
    assert split.train.user.tolist() == [0] * 4 + [1] * 4
    assert split.train.target_id.tolist() == [1, 9, 2, 9] * 2


def test_load_ready_made_without_histories(tmp_path: Path) -> None:
    """Histories that are empty throughout load too, whatever the column says of their values."""
    path = _ready(tmp_path / "log.parquet", history_ids=[[]] * 8, user=["u", "u", "v", "v"] * 2, split=_splits(8))
    with pytest.raises(DataError, match="leave any for validation"):  # one history is one unit, never parted
        data.load(path, seed=1)


def _splits(rows: int) -> list[str]:
    return ["train"] * (rows // 2) + ["test"] * (rows // 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"split": ["train"] * 7 + ["dev"]}, "row 8, column split: 'dev' is unknown", id="split"),
        pytest.param({"label": [1, 0, 3, 0] * 2}, "row 3, column label: 3 is neither 0 nor 1", id="label"),
        pytest.param({"history_ids": [[1]] * 7 + [None]}, "row 8, column history_ids: is null", id="null-history"),
        pytest.param({"history_ids": [[1]] * 7 + [[1, None]]}, "row 8, column history_ids: has a null", id="null-id"),
        pytest.param({"history_ids": [1] * 8}, "column history_ids: is Int64, not a list", id="no-list"),
        pytest.param({"history_ids": [["1"]] * 8}, "history_ids: holds String, column id Int64", id="unequal-types"),
        pytest.param({"history_ids": [[1.5]] * 8}, "history_ids: is Float64, not integers", id="floats"),
        pytest.param({"split": ["train"] * 8}, "samples bad.parquet: too few rows: no user has", id="no-test"),
        pytest.param({"label": [1] * 8}, "every test row has label 1; both 0 and 1 are needed", id="one-class"),
        pytest.param({"label": [1, 0] * 3 + [0, 0]}, "every test row has label 0", id="one-class-in-test"),
    ],
)
def test_load_ready_made_names_fault(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Samples that cannot be used are refused with the place and the reason."""
    with pytest.raises(DataError) as error:
        data.load(_ready(tmp_path / "bad.parquet", **change), seed=1)
    assert message in str(error.value)


def test_load_ready_made_needs_columns(tmp_path: Path) -> None:
    """A Parquet file with histories is taken for ready-made samples and needs their columns."""
    frame = pl.read_parquet(_ready(tmp_path / "bad.parquet")).drop("split", "tag")
    frame.write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"bad.parquet: has no columns tag, split"):
        data.load(tmp_path / "bad.parquet", seed=1)


@pytest.mark.parametrize(
    ("users", "each", "message"),
    [
        pytest.param(5, 1, "too few rows: no user has enough of them to leave any for test", id="one-row-a-user"),
        pytest.param(5, 2, "too few rows: no user has enough of them to leave any for validation", id="two-rows"),
        pytest.param(1, 9, "no sample: nobody liked an item while leaving another one unseen", id="one-user"),
    ],
)
def test_load_needs_rows(tmp_path: Path, users: int, each: int, message: str) -> None:
    """Too little to split is an error that says so."""
    with pytest.raises(DataError) as error:
        data.load(_interactions(tmp_path / "log.csv", users, each), seed=1)
    assert message in str(error.value)


def test_load_refuses_missing_path(tmp_path: Path) -> None:
    """A path that leads nowhere is named."""
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        data.load(tmp_path / "nowhere", seed=1)


def test_load_refuses_other_files(tmp_path: Path) -> None:
    """A file of no known kind is refused with the kinds there are."""
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"a.txt: is neither a MovieLens folder nor a .csv"):
        data.load(tmp_path / "a.txt", seed=1)


def _log(folder: Path, meetings: list[tuple[int, int, bool]], *, labelled: bool) -> Path:
    """Events (user, time, clicked) of which each has an item of its own: its place among them."""
    user, time, label = zip(*meetings, strict=True)
    columns: dict[str, Any] = {"user": user, "timestamp": time, "item": range(len(meetings)), "tag": 1}
    columns |= {"label": [int(each) for each in label]} if labelled else {}
    pl.DataFrame(columns, strict=False).write_csv(folder / "log.csv")
    return folder / "log.csv"


@pytest.mark.parametrize("mode", ["next-item", "ratings", "impressions"])
@given(
    meetings=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.booleans()), min_size=15, max_size=60),
    seed=st.integers(0, 3),
    negatives=st.integers(1, 2),
)
def test_load_never_leaks(
    mode: str,
    meetings: list[tuple[int, int, bool]],
    seed: int,
    negatives: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Histories hold the user's own earlier clicks; what a user is tested on is later than all learnt of that user.

    By ratings, nothing at all is learnt of whom the model is tested on.
    """
    folder = tmp_path_factory.mktemp("log")
    path = _log(folder, meetings, labelled=mode != "next-item")
    try:
        split = data.load(path, seed, 5, "ratings" if mode == "ratings" else "next-item", negatives)
    except DataError:
        return  # too little to split
    times: dict[str, dict[int, set[int]]] = {}
    for name in ("train", "validation", "test"):
        part: Samples = getattr(split, name)
        own = times.setdefault(name, {})
        for row in range(len(part)):
            if mode == "next-item" and not part.label[row]:
                continue  # drawn: an item that somebody else met
            user, time, liked = meetings[part.target_id[row]]
            assert mode == "next-item" or part.label[row] == liked
            own.setdefault(user, set()).add(time)
            earlier = [meetings[event] for event in _history(part, row)[0]]
            assert all(who == user and when < time for who, when, _ in earlier)
            assert mode == "next-item" or all(clicked for *_, clicked in earlier)
    for first, then in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = times[first].keys() & times[then].keys()
        assert mode != "ratings" or not both
        assert all(max(times[first][user]) < min(times[then][user]) for user in both)


def test_load_leaves_out_ties_with_held_out_rows(tmp_path: Path) -> None:
    """Rows of the very time at which a user's test rows begin are neither learnt from nor tested on."""
    times = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8]
    path = _interactions(tmp_path / "log.csv", users=1, each=10)
    other = pl.DataFrame({"user": [7], "item": [999], "tag": [1], "timestamp": [0]})
    frame = pl.read_csv(path).with_columns(timestamp=pl.Series(times))
    pl.concat([frame, other]).write_csv(path)
    split = data.load(path, seed=1)
    assert split.test.target_id[::2].tolist() == [108, 109]
    assert split.validation.target_id[::2].tolist() == [106]
    assert split.train.target_id[::2].tolist() == [100, 101, 102, 103, 104, 105, 999]


def test_load_by_ratings(tmp_path: Path) -> None:
    """A fifth of the users is for testing, a tenth of the others for validation, and every rating is a row."""
    ratings = [f"{user},{1 + i % 4},{4.5 if i % 2 else 3},{i}" for i in range(6) for user in range(20)]
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings, ""]))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{i},T,G\n" for i in range(1, 5)))
    split = data.load(tmp_path, seed=1, sampling="ratings", negatives=4)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [14 * 6, 2 * 6, 4 * 6]
    assert split.test.label.tolist() == [0, 1] * 12
    assert _history(split.test, 5)[0] == [2, 4]
    assert split.source == f"MovieLens {tmp_path.name}, ratings >= 4, split by user"
    assert (split.click_rate, split.negatives) == (None, 0)
    users = [set(part.user.tolist()) for part in (split.train, split.validation, split.test)]
    assert [len(each) for each in users] == [14, 2, 4]
    assert len(set.union(*users)) == 20
    assert data.load(tmp_path, seed=1, sampling="ratings").test.user.tolist() == split.test.user.tolist()
    assert data.load(tmp_path, seed=2, sampling="ratings").test.user.tolist() != split.test.user.tolist()


def test_load_draws_several_negatives(tmp_path: Path) -> None:
    """The split says how many were drawn, and which share clicks would have if all had been."""
    path = _interactions(tmp_path / "log.csv", users=3, each=10)
    split = data.load(path, seed=1, negatives=3)
    assert split.negatives == 3
    assert split.click_rate == pytest.approx(1 / (1 + pl.read_csv(path)["item"].n_unique() - 10))
    assert split.test.label.tolist() == [1, 0, 0, 0] * 6


def test_split_has_one_part(tmp_path: Path) -> None:
    """What is in memory is one part, whatever has been put in its place."""
    split = data.load(_interactions(tmp_path / "log.csv", users=3, each=10), seed=1)
    hashed = dataclasses.replace(split, train=split.train.take(np.arange(4)))
    assert [len(part()) for part in hashed.parts] == [4]


def test_load_ready_made_validation(tmp_path: Path) -> None:
    """Rows marked as validation are that, and all the others marked train are learnt from."""
    path = _ready(tmp_path / "log.parquet", split=["validation"] * 2 + ["train"] * 4 + ["test"] * 2)
    split = data.load(path, seed=1)
    assert split.validation.target_id.tolist() == [1, 9]
    assert split.train.target_id.tolist() == [2, 9, 3, 9]


def test_load_ignores_true_probability(tmp_path: Path) -> None:
    """A column with the true probabilities changes nothing, not even where it holds nonsense."""
    plain = data.load(_ready(tmp_path / "log.parquet"), seed=1)
    told = data.load(_ready(tmp_path / "log.parquet", probability=[None, float("nan")] * 4), seed=1)
    for column in ("event_id", "event_tag", "target_id", "label"):
        assert getattr(told.train, column).tolist() == getattr(plain.train, column).tolist()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=20), st.integers(1, 99))
def test_last_rows(units: list[tuple[int, int]], percent: int) -> None:
    """The marked rows are the last of each user, at least the share asked for, in whole units, and never the first."""
    units = sorted(units)
    user = np.array([user for user, size in units for _ in range(size)], np.int64)
    unit = np.array([number for number, (_, size) in enumerate(units) for _ in range(size)], np.int64)
    marked = data.last_rows(user, unit, percent)
    for one in np.unique(user):
        own, own_unit = marked[user == one], unit[user == one]
        assert (np.diff(own.astype(int)) >= 0).all()
        assert not own[own_unit == own_unit[0]].any()
        assert not set(own_unit[own]) & set(own_unit[~own])
        wanted = -(-len(own) * percent // 100)
        without_last_unit = own.sum() - (own_unit[own] == own_unit[own][0]).sum() if own.any() else 0
        assert without_last_unit < wanted  # not a unit more than it takes
        assert own.sum() >= wanted or own_unit[~own][-1] == own_unit[0]


@pytest.mark.parametrize(
    ("event_id", "padding"),
    [
        pytest.param(np.array([7, 8, 9]), 0, id="integers"),
        pytest.param(np.array([7, 8, 9], np.int32), 0, id="buckets"),
        pytest.param(np.array([b"7", b"8", b"9"], object), b"", id="text"),
    ],
)
def test_gather_pads(event_id: Any, padding: Any) -> None:
    """A mini-batch is as wide as its longest history, each sequence for itself, in the dtype of its array."""
    samples = Samples(
        event_id=event_id,
        event_tag=np.array([1, 2, 3, 4]),
        id_start=np.array([0, 1, 0]),
        id_stop=np.array([0, 3, 3]),
        tag_start=np.array([0, 3, 0]),
        tag_stop=np.array([0, 4, 4]),
        target_id=event_id,
        target_tag=np.array([1, 2, 3]),
        label=np.array([1, 0, 1], np.float32),
        user=np.array([0, 1, 2]),
    )
    batch = data.gather(samples, np.array([1, 0]))
    assert batch.seq_id.tolist() == [event_id[1:].tolist(), [padding, padding]]
    assert batch.seq_id.dtype == event_id.dtype
    assert batch.seq_tag.tolist() == [[4], [0]]
    assert batch.seq_id_length.tolist() == [2, 0]
    assert batch.seq_tag_length.tolist() == [1, 0]
    assert batch.target_id.tolist() == event_id[[1, 0]].tolist()
    assert batch.target_tag.tolist() == [2, 1]
    assert batch.label.tolist() == [0, 1]


def test_gather_without_histories(tmp_path: Path) -> None:
    """Where nobody has a history the mini-batch is still one wide."""
    train = data.load(_ready(tmp_path / "log.parquet"), seed=1).train
    assert data.gather(train, np.array([0, 1])).seq_id.shape == (2, 1)
    assert data.gather(train, np.array([], np.int64)).seq_id.shape == (0, 1)


def test_known_joins_train_and_validation(tmp_path: Path) -> None:
    """What has no epoch to choose learns from both, in whatever arrays stand in for the events."""
    split = data.load(_ready(tmp_path / "log.parquet"), seed=1)
    assert split.known.target_id.tolist() == [1, 9, 2, 9, 3, 9]
    assert _history(split.known, 5) == _history(split.validation, 1)
    assert len(dataclasses.replace(split.known, event_id=np.zeros(7, np.int32))) == 6


@pytest.mark.skipif(not MOVIELENS.exists(), reason=f"{MOVIELENS} is missing")
def test_load_movielens() -> None:
    """The real ratings give the reference's positives in its order, and as many rows for testing."""
    split = data.load(MOVIELENS, seed=1)
    assert split.source == "MovieLens ml-latest-small, ratings >= 4"
    assert [len(part) for part in (split.train, split.validation, split.test)] == [68140, 8228, 19930]
    if NEXT_ITEM.exists():
        reference = pl.read_parquet(NEXT_ITEM).filter(pl.col("split") == "test", pl.col("label") == 1)
        assert split.test.target_id[::2].tolist() == reference["id"].to_list()
        assert split.test.target_tag[::2].tolist() == reference["tag"].to_list()


@pytest.mark.skipif(not NEXT_ITEM.exists(), reason=f"{NEXT_ITEM} is missing")
def test_load_next_item_samples() -> None:
    """The reference samples come out as they are in the file."""
    split = data.load(NEXT_ITEM, seed=1)
    test = pl.read_parquet(NEXT_ITEM).filter(pl.col("split") == "test")
    assert [len(part) for part in (split.train, split.validation, split.test)] == [67854, 8158, 19930]
    assert split.test.target_id.tolist() == test["id"].to_list()
    batch = data.gather(split.test, np.arange(50))
    assert [row[:n].tolist() for row, n in zip(batch.seq_id, batch.seq_id_length, strict=True)] == test["history_ids"][
        :50
    ].to_list()
