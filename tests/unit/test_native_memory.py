"""What the C code holds on to, and for how long."""

import gc
import os
import sys
import weakref

import numpy as np
import pytest

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service.engine.native import _forward
from service.loading import resident_bytes
from tests.unit import raw
from tests.unit.hostile import ARGUMENTS, REQUEST
from tests.unit.raw import as_tuples, draw_raw, make_network

IDS = np.arange(5)


@pytest.fixture(scope="module")
def model() -> _forward.Model:
    """A model of two pairs."""
    return _forward.Model(*ARGUMENTS)


@pytest.mark.parametrize("refused", [pytest.param(False, id="answered"), pytest.param(True, id="refused")])
@pytest.mark.parametrize("text", [pytest.param(False, id="numbers"), pytest.param(True, id="text")])
def test_call_keeps_nothing(model: _forward.Model, text: bool, refused: bool) -> None:
    """After a call, answered or refused, nobody holds its arrays or the objects in them."""
    request = draw_raw(np.random.default_rng(1), (6, 4), 5, text=text)
    attention = np.empty((5, 6), np.float32), np.empty((5, 5 if not refused else 3), np.float32)
    probability, requests = np.empty(5, np.float32), (request.arrays,)
    held = [requests, *requests, *request.arrays, attention, *attention, probability]
    held += [each for values in request.arrays for each in values.tolist()] if text else []
    before = [sys.getrefcount(each) for each in held]
    for _ in range(10):
        try:
            model.run(requests, probability, attention)
        except ValueError:
            assert refused
        else:
            assert not refused
    assert [sys.getrefcount(each) for each in held] == before


def test_text_is_released_after_a_bad_one(model: _forward.Model) -> None:
    """Of an array refused for its last object, the ones before are let go."""
    good = b"a text of its own"
    bad = np.array([good, good, good, good, None], object)
    before = sys.getrefcount(good), sys.getrefcount(None)
    for _ in range(100):
        with pytest.raises(TypeError, match="not bytes"):
            model.run(((IDS, IDS, IDS, bad),), np.empty(5, np.float32))
    assert abs(sys.getrefcount(good) - before[0]) < 10
    assert abs(sys.getrefcount(None) - before[1]) < 50


def test_tables_live_as_long_as_their_model() -> None:
    """A model shares the tables and biases it was given, and lets go of them when it goes; all else it has copied."""
    arguments = as_tuples(make_network(item_bias=True, maps={"id": 70}))
    tables = [weakref.ref(table) for pair in arguments[0] for table in pair[:2]]
    assert arguments[2] is not None
    tables.append(weakref.ref(arguments[2]))
    kernel, rows = weakref.ref(arguments[1][0][0]), weakref.ref(arguments[0][0][3])
    made = _forward.Model(*arguments)
    del arguments
    gc.collect()
    assert all(each() is not None for each in tables)
    assert (kernel(), rows()) == (None, None)
    raw.run_plainly(made, [REQUEST])
    del made
    gc.collect()
    assert [each() for each in tables] == [None] * 5


def test_refused_model_keeps_nothing() -> None:
    """A network refused for its last layer lets go of its tables and biases."""
    arguments = as_tuples(make_network(item_bias=True, maps={"tag": 70}))
    tables = [weakref.ref(table) for pair in arguments[0] for table in pair[:2]]
    assert arguments[2] is not None
    tables.append(weakref.ref(arguments[2]))
    with pytest.raises(ValueError, match="last layer"):
        _forward.Model(arguments[0], arguments[1][:-1], *arguments[2:])
    del arguments
    gc.collect()
    assert [each() for each in tables] == [None] * 5


@pytest.mark.skipif("DIN_TEST_EXAMPLES" in os.environ, reason="a sanitizer keeps freed memory for a while")
def test_memory_does_not_grow(model: _forward.Model) -> None:
    """20,000 calls, some refused, and 2,000 models, some refused, leave the process as large as it was."""
    text = draw_raw(np.random.default_rng(1), (6, 4), 5, text=True)
    attention = np.empty((5, 6), np.float32), np.empty((5, 5), np.float32)
    probability = np.empty(5, np.float32)

    def work(times: int) -> None:
        for i in range(10 * times):
            request = text if i % 2 else REQUEST
            arrays = (*request.arrays[:3], None) if i % 5 == 0 else request.arrays
            try:
                model.run((arrays,), probability, attention)  # type: ignore[arg-type]
            except TypeError:
                assert i % 5 == 0
        for _ in range(times // 2):
            _forward.Model(*ARGUMENTS)
            with pytest.raises(ValueError, match="last layer"):
                _forward.Model(ARGUMENTS[0], ARGUMENTS[1][:-1], *ARGUMENTS[2:])

    work(500)
    before = resident_bytes()
    work(2000)
    assert resident_bytes() - before < 1_000_000  # 16 bytes lost in each call would be that much
