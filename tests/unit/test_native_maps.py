"""Maps from buckets to rows in the C code: what they change, and maps that are none."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service.engine.native import _forward
from tests.unit import raw
from tests.unit.hostile import ARGUMENTS, MAP, REQUEST, place, replaced
from tests.unit.raw import LEVELS, as_tuples, draw_raw, make_network
from tests.unit.reference import Network, draw_maps, forward


def make_model(network: Network, level: str) -> _forward.Model:
    """A network in C."""
    return _forward.Model(*as_tuples(network), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", [pytest.param(False, id="numbers"), pytest.param(True, id="text")])
@pytest.mark.parametrize("tables", [pytest.param(True, id="shared-tables"), pytest.param(False, id="separate-tables")])
@pytest.mark.parametrize("mapped", [("id",), ("tag",), ("id", "tag")], ids="-".join)
def test_many_buckets_of_few_rows(level: str, text: bool, tables: bool, mapped: tuple[str, ...]) -> None:
    """Values are embedded, weighed and biased by the row that a map gives their bucket, with or without history."""
    maps = {"id": 1 << 20, "tag": 1000}
    network = make_network(
        maps={name: maps[name] for name in mapped}, item_bias=True, product=True, shared_tables=tables
    )
    rng = np.random.default_rng(1)
    requests = [draw_raw(rng, lengths, 30, text=text) for lengths in ((60, 40), (0, 0), (0, 9), (9, 0))]
    for request, answer in zip(requests, raw.run(make_model(network, level), requests), strict=True):
        raw.check(answer, forward(network, request.hash(network)), network)


@pytest.mark.parametrize("level", LEVELS)
def test_map_of_every_bucket_to_itself(level: str) -> None:
    """Where each bucket has the row of its own number, a map changes no bit of an answer."""
    network = make_network(item_bias=True)
    maps = {name: np.arange(rows, dtype=np.int32) for name, (rows, _) in network.tables.items()}
    mapped = Network(network.architecture, network.tables, network.arrays, maps)
    request = draw_raw(np.random.default_rng(1), (60, 40), 30)
    answers = [raw.run(make_model(each, level), [request])[0] for each in (network, mapped)]
    for one, other in zip((answers[0][0], *answers[0][1]), (answers[1][0], *answers[1][1]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("level", LEVELS)
def test_values_of_one_row(level: str) -> None:
    """Values in different buckets that have the same row are the same value: equal answers, equal attention."""
    network = make_network(item_bias=True)
    maps = draw_maps(np.random.default_rng(1), network.tables, {"id": 1000, "tag": 1000})
    network.maps.update({name: each % 2 for name, each in maps.items()})
    request = draw_raw(np.random.default_rng(2), (60, 60), 60)
    (answer,) = raw.run(make_model(network, level), [request])
    raw.check(answer, forward(network, request.hash(network)), network)
    assert [len(np.unique(each)) for each in answer[1]] == [4, 4]  # two rows of targets x two rows of entries
    assert len(np.unique(answer[0])) == 4


@pytest.mark.parametrize("row", [-1, 50, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("bucket", [0, 35, 69])
def test_map_that_leaves_its_tables(row: int, bucket: int) -> None:
    """A map of which one entry is no row of the tables is refused, wherever the entry stands."""
    rows = place(ARGUMENTS, MAP).copy()
    rows[bucket] = row
    with pytest.raises(ValueError, match="rows: none, or one that is not in the tables"):
        _forward.Model(*replaced(ARGUMENTS, MAP, rows))


@pytest.mark.parametrize("table", [pytest.param(0, id="history"), pytest.param(1, id="target")])
def test_map_of_the_longer_table(table: int) -> None:
    """Of two tables of different lengths a map stays in the shorter one."""
    shorter = replaced(ARGUMENTS, (0, 1, table), place(ARGUMENTS, (0, 1, table))[:20].copy())
    raw.run(_forward.Model(*replaced(shorter, (0, 1, 3), np.array([19, 0], np.int32))), [REQUEST])
    with pytest.raises(ValueError, match="rows"):
        _forward.Model(*replaced(shorter, (0, 1, 3), np.array([19, 20], np.int32)))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(np.zeros(70, np.int64), id="int64"),
        pytest.param(np.zeros(70, np.uint32), id="uint32"),
        pytest.param(np.zeros(70, np.float32), id="float32"),
        pytest.param(np.zeros(70, ">i4"), id="other-byte-order"),
        pytest.param(np.zeros(0, np.int32), id="empty"),
        pytest.param(np.zeros((70, 1), np.int32), id="two-axes"),
        pytest.param(np.zeros((), np.int32), id="no-axis"),
        pytest.param(np.zeros(140, np.int32)[::2], id="every-second"),
        pytest.param(np.broadcast_to(np.int32(0), 1 << 40), id="broadcast-terabytes"),
        pytest.param([0] * 70, id="list"),
    ],
)
def test_map_that_is_none(rows: Any) -> None:
    """What is not a line of int32 is no map."""
    with pytest.raises((TypeError, ValueError, BufferError)):
        _forward.Model(*replaced(ARGUMENTS, MAP, rows))


def test_map_is_not_looked_at_again() -> None:
    """A map that somebody changes after it was checked changes nothing: the model has a copy of its own."""
    arguments = replaced(ARGUMENTS, MAP, place(ARGUMENTS, MAP).copy())
    model = _forward.Model(*arguments)
    before = raw.run_plainly(model, [REQUEST])
    place(arguments, MAP)[:] = 2**31 - 1
    np.testing.assert_array_equal(raw.run_plainly(model, [REQUEST]), before)
