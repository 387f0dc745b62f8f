from pathlib import Path
from typing import Any

import polars as pl
import pytest

from service.errors import DataError
from service.training import Samples, data, sizes


def _part(folder: Path, name: str, part: str, rows: int = 4, **change: Any) -> None:
    columns: dict[str, Any] = {
        "user": [name] * rows,
        "history_ids": [[1, 2, 3]] * rows,
        "history_tags": [["a"]] * rows,
        "id": range(rows),
        "tag": ["b"] * rows,
        "label": [row % 2 for row in range(rows)],
        "split": [part] * rows,
    }
    pl.DataFrame(columns | change, strict=False).write_parquet(folder / f"part-{name}.parquet")


def _rows(part: Samples) -> list[tuple[Any, ...]]:
    return [
        (
            part.event_id[part.id_start[row] : part.id_stop[row]].tolist(),
            part.event_tag[part.tag_start[row] : part.tag_stop[row]].tolist(),
            int(part.target_id[row]),
            part.target_tag[row],
            int(part.label[row]),
        )
        for row in range(len(part))
    ]


def test_parts_are_loaded_one_by_one(tmp_path: Path) -> None:
    """Each part gives its train rows when it is asked for; what is held out is there at once, from any part."""
    _part(tmp_path, "0", "validation")
    _part(tmp_path, "1", "train", split=["train", "train", "test", "test"], history_ids=[[], [1], [1, 2], [1, 2, 3]])
    _part(tmp_path, "2", "train", rows=6)
    split = data.load(tmp_path, seed=1, max_history=2)
    assert split.source == f"samples {tmp_path.name}"
    assert (split.click_rate, split.negatives) == (None, 0)
    assert _rows(split.train) == [([], [b"a"], 0, b"b", 0), ([1], [b"a"], 1, b"b", 1)]
    assert _rows(split.test) == [([1, 2], [b"a"], 2, b"b", 0), ([2, 3], [b"a"], 3, b"b", 1)]
    assert [len(part()) for part in split.parts] == [2, 6]
    assert _rows(split.parts[0]()) == _rows(split.train)
    assert _rows(split.parts[1]()) == [([2, 3], [b"a"], row, b"b", row % 2) for row in range(6)]
    assert _rows(split.known) == _rows(split.train) + _rows(split.validation)
    assert not set(split.test.user.tolist()) & set(split.validation.user.tolist())


def test_part_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    """A part that is gone, or of other types, fails by name when its turn comes."""
    for name, split in (("0", "train"), ("1", "train"), ("2", "train"), ("3", "test"), ("4", "validation")):
        _part(tmp_path, name, split)
    loaded = data.load(tmp_path, seed=1)
    _part(tmp_path, "1", "train", tag=[1, 2, 3, 4], history_tags=[[1]] * 4)
    (tmp_path / "part-2.parquet").unlink()
    assert len(loaded.parts[0]()) == 4
    with pytest.raises(DataError, match=r"part-1.parquet: column history_tags: is List\(Int64\), in other parts List"):
        loaded.parts[1]()
    with pytest.raises(DataError, match=r"part-2.parquet: cannot be read: No such file"):
        loaded.parts[2]()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        pytest.param({"split": ["train", "dev"] * 2}, "part-1.parquet: row 2, column split: 'dev' is", id="split"),
        pytest.param({"label": [0, 1, 2, 0]}, "part-1.parquet: row 3, column label: 2 is neither", id="label"),
        pytest.param({"history_ids": [[1]] * 3 + [[None]]}, "part-1.parquet: row 4, column history_ids", id="null"),
        pytest.param({"split": ["test"] * 4}, "too few rows: no part has any whose column split is train", id="train"),
        pytest.param({"label": [0] * 4}, "every train row has label 0; both 0 and 1 are needed", id="one-class"),
        pytest.param({"user": [1.5] * 4}, "part-1.parquet: column user: is Float64, not integers", id="type"),
        pytest.param({"user": [1] * 4}, "column user: is Int64, in other parts String", id="unlike"),
    ],
)
def test_bad_part_is_named(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    """A fault in a part is named by file, row and column, and so is what no part has."""
    _part(tmp_path, "2", "validation")
    _part(tmp_path, "3", "test")
    _part(tmp_path, "1", "train", **bad)
    with pytest.raises(DataError) as error:
        data.load(tmp_path, seed=1)
    assert message in str(error.value)


def test_part_needs_columns(tmp_path: Path) -> None:
    """A part without a column is named with what it has."""
    _part(tmp_path, "1", "train")
    pl.read_parquet(tmp_path / "part-1.parquet").drop("tag").write_parquet(tmp_path / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1.parquet: has no column tag; its columns are user"):
        data.load(tmp_path, seed=1)


def test_too_many_rows_held_out_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that fit alone, but not what they hold out together, are refused before memory is gone."""
    for name, split in (("0", "train"), ("1", "validation"), ("2", "test"), ("3", "test")):
        _part(tmp_path, name, split, rows=100)
    assert len(data.load(tmp_path, seed=1).test) == 200
    monkeypatch.setattr(sizes, "MOST_BYTES", 13_000)
    with pytest.raises(DataError, match=r"part-\d.parquet: validation and test rows, which are held in memory"):
        data.load(tmp_path, seed=1)
