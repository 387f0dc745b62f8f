"""The filter of the ids that training met."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch import Ids
from service.errors import ArtifactError
from service.seen import SEEN_IDS, Seen, SeenIds, make_seen, read_seen, write_seen

INT64 = st.integers(-(2**63), 2**63 - 1)


def as_bytes(values: list[str]) -> Ids:
    """A column of text."""
    return np.array([each.encode() for each in values], object)


@given(st.lists(INT64, min_size=1, max_size=300))
def test_no_number_is_forgotten(values: list[int]) -> None:
    """Every number that was met is found, the extremes of int64 too, however often it was met."""
    ids = np.array(values, np.int64)
    found = make_seen(ids)
    assert found.contains(ids).all()
    assert found.seen.ids == len(set(values))


@given(st.lists(st.text(), min_size=1, max_size=100))
def test_no_string_is_forgotten(values: list[str]) -> None:
    """Every string that was met is found, the empty one too."""
    ids = as_bytes(values)
    assert make_seen(ids).contains(ids).all()


@pytest.mark.parametrize("count", [100, 10_000])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda first, count: np.arange(first, first + count), id="in-a-row"),
        pytest.param(lambda first, count: np.arange(first, first + count) << 32, id="high-bits"),
        pytest.param(
            lambda first, count: np.random.default_rng(first).integers(-(2**63), 2**63 - 1, count), id="random"
        ),
        pytest.param(lambda first, count: as_bytes([f"item-{i}" for i in range(first, first + count)]), id="strings"),
    ],
)
def test_few_others_are_taken_for_met(make: Callable[[int, int], Ids], count: int) -> None:
    """About one of a hundred ids that were not met is found, whatever ids look like."""
    found = make_seen(make(0, count))
    assert 0.005 < found.contains(make(10**6, 50_000)).mean() < 0.02
    assert found.seen.bits < 10 * count
    assert found.seen.hashes == 7


def test_false_positives_can_be_fewer() -> None:
    """A lower rate is kept as well, for more bits."""
    found = make_seen(np.arange(1000), 0.0001)
    assert found.contains(np.arange(10**6, 2 * 10**6)).mean() < 0.0003


def test_nothing_asked_is_nothing_found() -> None:
    """A history without ids has none that were met."""
    for ids in (np.array([], np.int64), np.array([], object)):
        assert make_seen(np.arange(5)).contains(ids).tolist() == []


def test_every_second_id_is_looked_up_too() -> None:
    """Ids that do not lie side by side are looked up as well."""
    ids = np.arange(100)
    assert make_seen(ids[::2]).contains(ids[::2]).all()


def test_format_stays() -> None:
    """The same ids make the same bits, everywhere and always: files of today are read tomorrow."""
    numbers, strings = make_seen(np.array([1, -1, 2**63 - 1])), make_seen(as_bytes(["a", "é", ""]))
    assert (numbers.seen, strings.seen) == (Seen(ids=3, hashes=7, bits=32), Seen(ids=3, hashes=7, bits=32))
    assert numbers.content.tobytes().hex() == "e38f582e"
    assert strings.content.tobytes().hex() == "24ebbf98"


def test_filter_survives_the_disk(tmp_path: Path) -> None:
    """A filter answers from its file as before."""
    made = make_seen(np.arange(500))
    write_seen(tmp_path, made)
    read = read_seen(tmp_path, made.seen)
    assert read is not None
    asked = np.arange(2000)
    np.testing.assert_array_equal(read.contains(asked), made.contains(asked))


def test_version_may_have_none(tmp_path: Path) -> None:
    """Without a description there is no filter, whatever lies there."""
    (tmp_path / SEEN_IDS).write_bytes(b"?")
    assert read_seen(tmp_path, None) is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda _: None, "cannot be read: No such file", id="missing"),
        pytest.param(lambda content: content[:-1], "holds 4792 bits, the manifest says 4800", id="truncated"),
        pytest.param(lambda content: content + b"\0", "holds 4808 bits, the manifest says 4800", id="longer"),
        pytest.param(lambda content: bytes(len(content)), "0 bits are set, which 500 ids cannot have", id="empty"),
        pytest.param(lambda content: b"\xff" * len(content), "4800 bits are set, which 500 ids", id="full"),
    ],
)
def test_bad_filter_is_refused(tmp_path: Path, damage: Callable[[bytes], Any], reason: str) -> None:
    """A file that is not the filter that the manifest describes is refused, saying why."""
    made = make_seen(np.arange(500))
    content = damage(made.content.tobytes())
    if content is not None:
        (tmp_path / SEEN_IDS).write_bytes(content)
    with pytest.raises(ArtifactError, match=reason):
        read_seen(tmp_path, made.seen)


def test_many_ids_are_added_in_parts() -> None:
    """More ids than are hashed at once are all met."""
    ids = np.arange(150_000)
    found: SeenIds = make_seen(ids)
    assert found.contains(ids).all()
