"""Ledgers count as plain collectors do, in C or not, whoever writes and reads meanwhile."""

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from service.collectors import Count, Spread, Tally, make_ledger
from service.drift import BOUNDS
from service.ledgers import BUILT, Journal, Ledger, Table

disable_created_metrics()  # type: ignore[no-untyped-call]  # as the service does: two series do not begin at once
INF = float("inf")
NOT_BUILT = pytest.mark.skipif(not BUILT, reason="the counting in C is not built")


@pytest.fixture(params=[pytest.param(Table, marks=NOT_BUILT), Journal])
def kind(request: pytest.FixtureRequest) -> type[Ledger]:
    """Either kind of ledger."""
    made: type[Ledger] = request.param
    return made


def test_rows_read_as_in_plain_collectors(kind: type[Ledger]) -> None:
    """Rows below, at, between and above the bounds read as in plain collectors, each time anew."""
    plain, fed = CollectorRegistry(), CollectorRegistry()
    columns = [
        Histogram("din_x", "x", ["y"], registry=plain, buckets=(0, 0.5, 2)).labels("z"),
        Histogram("din_w", "w", registry=plain, buckets=(1, 3)),
    ]
    tallies = [
        Tally("din_x", "x", ["y"], registry=fed, buckets=(0, 0.5, 2)).labels("z"),
        Tally("din_w", "w", registry=fed, buckets=(1, 3)),
    ]
    counted = Counter("din_n", "n", registry=plain)
    ledger = kind(tallies, Count("din_n", "n", registry=fed))
    for values in ([-1, 0.0, 0.25, 0.5], [0.75, 2.0, 3.0, INF], [], [float(i) for i in range(1500)]):
        for value in values:
            for column, each in zip(columns, (value, value + 1), strict=True):
                column.observe(each)
            counted.inc()
            ledger.add((value, value + 1))
        assert generate_latest(fed) == generate_latest(plain)


def test_shares_are_counted_as_bounds_say(kind: type[Ledger]) -> None:
    """Of shares on, just below and just above each bound, and of others, each bucket has those that are no greater."""
    bounds = np.array((0.0, *BOUNDS), np.float32)
    steps = np.arange(-50, 51, dtype=np.int32)[:, None]
    beside = (bounds.view(np.int32) + steps).view(np.float32).ravel()  # the next float32 each time
    drawn = np.random.default_rng(1).random(100_000, np.float32)
    shares = np.concatenate([beside[np.isfinite(beside)], drawn])
    registry = CollectorRegistry()
    ledger = kind([], spread=Spread("din_x", "x", registry=registry, buckets=BOUNDS))
    for part in np.split(shares, [0, 1, 8, 90_000]):
        ledger.add((), part)
    assert registry.get_sample_value("din_x_count") == len(shares)
    assert registry.get_sample_value("din_x_sum") == pytest.approx(shares.sum(dtype=float))
    for bound in BOUNDS:
        assert registry.get_sample_value("din_x_bucket", {"le": str(bound)}) == (shares.astype(float) <= bound).sum()


def test_threads_lose_nothing(kind: type[Ledger]) -> None:
    """What several threads put down is all counted, also while another reads."""
    registry = CollectorRegistry()
    spread = Spread("din_s", "s", registry=registry, buckets=BOUNDS)
    ledger = kind([Tally("din_x", "x", registry=registry, buckets=(1.0,))], spread=spread)
    shares = np.full(3, 0.5, np.float32)

    def put_down() -> None:
        for _ in range(5000):
            ledger.add((0.5,), shares)

    threads = [threading.Thread(target=put_down) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        generate_latest(registry)
    assert registry.get_sample_value("din_x_bucket", {"le": "1.0"}) == 20_000
    assert registry.get_sample_value("din_x_sum") == 10_000
    assert registry.get_sample_value("din_s_count") == 60_000
    assert registry.get_sample_value("din_s_sum") == 30_000


def test_closed_ledger_is_read_no_more(kind: type[Ledger]) -> None:
    """At its end a ledger tells what it has, and its columns forget it."""
    registry = CollectorRegistry()
    tally = Tally("din_x", "x", registry=registry, buckets=(1.0,))
    ledger = kind([tally])
    ledger.add((0.5,))
    ledger.close()
    assert tally._ledgers == ()
    assert registry.get_sample_value("din_x_count") == 1


def test_several_processes_keep_no_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One process counts in C where that is built; of several each writes at once what the others read."""
    tally = Tally("din_x", "x", registry=CollectorRegistry(), buckets=(1.0,))
    assert isinstance(make_ledger([tally]), Table if BUILT else Journal)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert isinstance(make_ledger([tally]), Journal)


def counts(*columns: Any, bins: Any = 4) -> Any:
    """The counting in C."""
    from service._counts import Counts

    return Counts(columns, bins)


@NOT_BUILT
@pytest.mark.parametrize(
    ("columns", "bins", "error"),
    [
        pytest.param([()], 4, TypeError, id="no-bounds"),
        pytest.param([[1.0, INF]], 4, TypeError, id="no-tuple"),
        pytest.param([("1", INF)], 4, TypeError, id="no-numbers"),
        pytest.param([(1.0, 2.0)], 4, ValueError, id="a-last-bound"),
        pytest.param([(INF,)], -1, ValueError, id="negative-bins"),
        pytest.param([(INF,)], 1 << 40, ValueError, id="too-many-bins"),
    ],
)
def test_columns_are_checked(columns: list[Any], bins: int, error: type[Exception]) -> None:
    """What are no bounds is refused before anything is counted."""
    with pytest.raises(error):
        counts(*columns, bins=bins)


@NOT_BUILT
@pytest.mark.parametrize(
    "given",
    [
        pytest.param((), id="nothing"),
        pytest.param(([0.5],), id="no-tuple"),
        pytest.param(((0.5, 0.5),), id="too-long"),
        pytest.param((("x",),), id="no-number"),
        pytest.param(((0.5,), np.zeros(3)), id="doubles"),
        pytest.param(((0.5,), np.zeros(8, np.float32)[::2]), id="not-in-one-piece"),
        pytest.param(((0.5,), [0.5]), id="no-array"),
        pytest.param(((0.5,), None, None), id="too-many"),
    ],
)
def test_bad_row_counts_for_nothing(given: tuple[Any, ...]) -> None:
    """A row that cannot be counted raises, and nothing of it is counted."""
    table = counts((1.0, INF))
    with pytest.raises((TypeError, ValueError, BufferError)):
        table.add(*given)
    assert table.take() == (0, [([0, 0], 0.0)], ([0] * 5, 0.0))


@NOT_BUILT
def test_counts_are_taken_once() -> None:
    """What was taken is not there the next time, and what is not a number falls into the lowest bucket."""
    table = counts((1.0, INF), (INF,))
    nan = float("nan")
    table.add((2, 1.5), np.array([0.3, -1, 2, nan], np.float32))
    rows, columns, (shares, _) = table.take()
    assert (rows, columns, shares) == (1, [([0, 1], 2.0), ([1], 1.5)], [2, 1, 0, 0, 1])
    assert table.take()[0] == 0
    table.add((nan, 0))
    assert table.take()[1][0][0] == [1, 0]


@NOT_BUILT
def test_counting_keeps_no_object() -> None:
    """Neither rows nor shares nor what was taken stay in memory."""
    table, shares = counts((1.0, INF)), np.zeros(9, np.float32)
    for _ in range(100):
        table.add((0.5,), shares)
        table.take()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(1000):
        table.add((0.5,), shares)
        table.take()
    assert abs(len(gc.get_objects()) - before) < 50
    shares.resize(3, refcheck=False)  # which fails while a buffer of it is held
