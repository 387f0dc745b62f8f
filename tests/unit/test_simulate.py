import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from service.cli import main
from service.errors import DataError
from service.training import data, simulate
from service.training.evaluate import quality
from service.training.simulate import Size, World

SIZE = Size(samples=3000, users=150, items=60, tags=6, max_history=12, seed=4)
WORLD = World(items=20, tags=4, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three thousand simulated samples in parts of 500."""
    out = tmp_path_factory.mktemp("simulated") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "PART_ROWS", 500)
        simulate.write(out, SIZE)
    return out


def _frames(folder: Path, split: str) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob(f"part-{split}-*.parquet"))])


def _probability(world: World, history: list[int], target: int) -> float:
    """The formula of the module's first lines, one number after the other."""
    likeness = [sum(a * b for a, b in zip(world.place[each], world.place[target], strict=True)) for each in history]
    weights = [math.exp(simulate.SHARPNESS * each) for each in likeness]
    appeal = sum(w * s for w, s in zip(weights, likeness, strict=True)) / sum(weights) if history else 0
    return 1 / (1 + math.exp(-(simulate.BASE + world.quality[target] + simulate.PULL * appeal)))


@given(st.lists(st.integers(0, 19), max_size=9), st.integers(0, 19))
def test_probability_is_the_formula(history: list[int], target: int) -> None:
    """The truth is the documented function of history and target; what pads a history counts for nothing."""
    padded = np.array([[7] * (9 - len(history)) + history])
    drawn = WORLD.probability(padded, np.array([len(history)]), np.array([target]))
    assert drawn[0] == pytest.approx(_probability(WORLD, history, target))


def test_written_probability_is_that_of_the_row(folder: Path) -> None:
    """What a row's columns hold is all that its probability depends on, and tags are those of the items."""
    world = World(SIZE.items, SIZE.tags, SIZE.seed)
    frame = _frames(folder, "test")
    assert frame["history_ids"].list.len().max() == SIZE.max_history
    for row in frame.sample(100, seed=1).iter_rows(named=True):
        expected = _probability(world, [each - 1 for each in row["history_ids"]], row["id"] - 1)
        assert row["probability"] == pytest.approx(expected)
        assert row["tag"] == world.tag[row["id"] - 1] + 1
        assert row["history_tags"] == [world.tag[each - 1] + 1 for each in row["history_ids"]]


def test_history_is_what_was_clicked_before(folder: Path) -> None:
    """A user's next history is the last one, and behind it the target if that was clicked."""
    for _, rows in _frames(folder, "train").group_by("user", maintain_order=True):
        history, label, target = rows["history_ids"].to_list(), rows["label"], rows["id"]
        for row in range(len(rows) - 1):
            clicked = [target[row]] if label[row] else []
            assert history[row + 1] == (history[row] + clicked)[-SIZE.max_history :]


def test_splits_have_users_of_their_own(folder: Path) -> None:
    """A tenth is for testing and a tenth for validation, each of users that are in nothing else."""
    frames = {split: _frames(folder, split) for split in ("train", "validation", "test")}
    assert {split: len(frame) for split, frame in frames.items()} == {"train": 2400, "validation": 300, "test": 300}
    users = [set(frame["user"]) for frame in frames.values()]
    assert sum(map(len, users)) == len(set.union(*users)) == 150
    assert all(set(frame["split"]) == {split} for split, frame in frames.items())


def test_clicks_come_at_their_probabilities(folder: Path) -> None:
    """As many are clicked as the probabilities say, among the likely and the unlikely."""
    frame = _frames(folder, "train").sort("probability")
    for part in (frame[:1200], frame[1200:]):
        clicks, probability = (part[name].to_numpy() for name in ("label", "probability"))
        spread = math.sqrt((probability * (1 - probability)).sum())
        assert abs(clicks.sum() - probability.sum()) < 4 * spread


def test_folder_is_training_data(folder: Path) -> None:
    """The folder loads as a stream of parts, and the truth scores on its test rows what was told."""
    split = data.load(folder, seed=1)
    assert [len(part()) for part in split.parts] == [500, 500, 500, 500, 400]
    told = json.loads((folder / "simulation.json").read_text())
    assert told["rows"] == {"train": 2400, "validation": 300, "test": 300}
    truth = quality(split.test.label, _frames(folder, "test")["probability"].to_numpy(), split.test.user)
    assert told["oracle"] == truth.model_dump()
    assert truth.auc > 0.65


def test_same_size_gives_same_files(folder: Path, tmp_path: Path) -> None:
    """The seed decides all; another one gives other samples."""
    simulate.write(tmp_path / "a", Size(200, 20, 30, 3, 5, seed=1))
    simulate.write(tmp_path / "b", Size(200, 20, 30, 3, 5, seed=1))
    simulate.write(tmp_path / "c", Size(200, 20, 30, 3, 5, seed=2))
    same, again, other = (_frames(tmp_path / name, "train") for name in "abc")
    assert same.equals(again)
    assert not same.equals(other)


def test_command_tells_the_oracle(tmp_path: Path) -> None:
    """The command says how many rows there are and what the true probabilities score."""
    size = ("--samples", "2000", "--users", "100", "--items", "50", "--tags", "5", "--seed", "2")
    done = CliRunner().invoke(main, ["simulate", "--out", str(tmp_path / "made"), *size])
    assert done.exit_code == 0, done.output
    oracle = json.loads((tmp_path / "made" / "simulation.json").read_text())["oracle"]
    assert "1600 train, 200 validation, 200 test rows" in done.output
    assert f"oracle: AUC {oracle['auc']:.4f} GAUC {oracle['gauc']:.4f} logloss" in done.output


@pytest.mark.parametrize(
    ("size", "message"),
    [
        pytest.param(Size(2000, 1, 9, 2), "2000 samples of each user are too many", id="few-users"),
        pytest.param(Size(10, 10, 9, 2, seed=3), "all of one class", id="one-class"),
    ],
)
def test_nothing_is_left_of_what_cannot_be(tmp_path: Path, size: Size, message: str) -> None:
    """Where the samples are no use, the error says so and no folder is left."""
    with pytest.raises(DataError, match=message):
        simulate.write(tmp_path / "made", size)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder that holds something, or a file, is left as it is."""
    (tmp_path / "a.txt").touch()
    for out in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(DataError, match="is there already"):
            simulate.write(out, SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
