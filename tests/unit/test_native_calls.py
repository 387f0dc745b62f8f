"""Calls of the C code with arguments that are wrong: a Python exception each time, and the model works afterwards."""

import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service.engine.native import _forward
from tests.unit import raw
from tests.unit.hostile import ARGUMENTS, EXAMPLES, NESTED, REFUSED, REQUEST, Path, misaligned, paths, replaced

IDS = np.arange(5)
PLACES = [path for path in paths(((REQUEST.arrays,) * 2, 0, (0, 0))) if path]


@pytest.fixture(scope="module")
def model() -> _forward.Model:
    """A model of two pairs."""
    return _forward.Model(*ARGUMENTS)


@pytest.fixture(autouse=True)
def still_works(model: _forward.Model) -> Iterator[None]:
    """After every test here the model answers as before."""
    before = raw.run_plainly(model, [REQUEST])
    yield
    np.testing.assert_array_equal(raw.run_plainly(model, [REQUEST]), before)


def outputs(rows: int = 5) -> Any:
    """An array for probabilities."""
    return np.empty(rows, np.float32)


def in_objects(value: object) -> Any:
    """An array of objects, one of which is `value`."""
    made = np.array([b"1"] * 5, object)
    made[3] = value
    return made


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(IDS.astype(">i8"), id="other-byte-order"),
        pytest.param(IDS.astype(np.uint64), id="unsigned"),
        pytest.param(IDS.astype(np.int32), id="int32"),
        pytest.param(IDS.astype(bool), id="bool"),
        pytest.param(IDS.astype(np.float64), id="float64"),
        pytest.param(IDS.astype(np.float32), id="float32"),
        pytest.param(IDS.astype("datetime64[s]"), id="dates"),
        pytest.param(IDS.astype(complex), id="complex"),
        pytest.param(IDS.astype("S8"), id="fixed-text"),
        pytest.param(IDS.astype([("a", "i8")]), id="structures"),
        pytest.param(np.arange(10)[::2], id="every-second"),
        pytest.param(IDS[::-1], id="backwards"),
        pytest.param(np.broadcast_to(np.int64(3), (5,)), id="broadcast"),
        pytest.param(as_strided(IDS, (1 << 40,), (0,)), id="broadcast-terabytes"),
        pytest.param(IDS.reshape(5, 1), id="column"),
        pytest.param(IDS.reshape(1, 5), id="row"),
        pytest.param(np.array(5), id="no-axis"),
        pytest.param(misaligned(IDS), id="misaligned"),
        pytest.param(in_objects(None), id="none"),
        pytest.param(in_objects("text"), id="str"),
        pytest.param(in_objects(7), id="int-object"),
        pytest.param(in_objects(bytearray(b"1")), id="bytearray-object"),
        pytest.param(np.array([b"1"] * 10, object)[::2], id="every-second-object"),
        pytest.param(np.empty(5, object), id="empty-objects"),
        pytest.param([1, 2, 3, 4, 5], id="list"),
        pytest.param((1, 2, 3, 4, 5), id="tuple"),
        pytest.param(b"12345678" * 5, id="bytes"),
        pytest.param(memoryview(b"12345678" * 5), id="view-of-bytes"),
        pytest.param("12345", id="text"),
        pytest.param(None, id="nothing"),
        pytest.param(5, id="number"),
    ],
)
@pytest.mark.parametrize("position", [pytest.param(i, id=f"array-{i}") for i in range(4)])
def test_values_that_are_none(model: _forward.Model, position: int, values: Any) -> None:
    """Values of another type, byte order, shape or place in memory are refused, never misread."""
    arrays: list[Any] = [IDS, IDS, IDS, IDS]
    arrays[position] = values
    probability = np.full(5, 7, np.float32)
    with pytest.raises((TypeError, ValueError, BufferError)):
        model.run((tuple(arrays),), probability)
    assert (probability == 7).all()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(IDS.astype("<i8"), id="little-endian"),
        pytest.param(IDS.astype(np.longlong), id="longlong"),
        pytest.param(array.array("q", range(5)), id="array"),
        pytest.param(memoryview(array.array("q", range(5))), id="view"),
        pytest.param(as_strided(IDS[:1], (1,), (12345,)), id="stride-of-one"),
    ],
)
def test_values_by_another_name(model: _forward.Model, values: Any) -> None:
    """Whatever lies in memory as int64 does is read as that."""
    expected, found = outputs(len(values)), outputs(len(values))
    same = np.array(values)
    model.run(((IDS, IDS, same, same),), expected)
    model.run(((IDS, IDS, values, values),), found)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([(IDS,) * 4], id="list"),
        pytest.param(([IDS] * 4,), id="request-list"),
        pytest.param((IDS,) * 4, id="no-request"),
        pytest.param(((),), id="no-arrays"),
        pytest.param(((IDS,) * 3,), id="three-arrays"),
        pytest.param(((IDS,) * 5,), id="five-arrays"),
        pytest.param(((IDS,) * 4, (IDS,) * 4, None), id="one-is-none"),
        pytest.param(((IDS, IDS, IDS, IDS[:4]),), id="fewer-tags"),
        pytest.param(((IDS, IDS, IDS[:4], IDS),), id="fewer-ids"),
        pytest.param(((IDS, IDS, IDS[:0], IDS),), id="no-ids"),
        pytest.param((), id="none"),
        pytest.param(((IDS,) * 4,) * 2, id="twice"),
        pytest.param(None, id="nothing"),
    ],
)
def test_requests_that_are_none(model: _forward.Model, requests: Any) -> None:
    """Requests that are not tuples of four arrays, with targets of one length and as many as asked for, are refused."""
    with pytest.raises((TypeError, ValueError)):
        model.run(requests, outputs())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda each: each[:-1].copy(), id="too-small"),
        pytest.param(lambda each: np.concatenate([each, each]), id="too-large"),
        pytest.param(lambda each: each[:0].copy(), id="empty"),
        pytest.param(lambda each: each.astype(np.float64), id="float64"),
        pytest.param(lambda each: each.astype(np.float16), id="float16"),
        pytest.param(lambda each: each.astype(np.int32), id="int32"),
        pytest.param(lambda each: each.astype(">f4"), id="other-byte-order"),
        pytest.param(lambda each: each.astype(object), id="objects"),
        pytest.param(lambda each: np.repeat(each, 2, 0)[::2], id="every-second"),
        pytest.param(lambda each: np.broadcast_to(each[:1], each.shape), id="broadcast"),
        pytest.param(lambda each: each.ravel()[: each.size, None, None], id="three-axes"),
        pytest.param(misaligned, id="misaligned"),
        pytest.param(lambda each: each.tolist(), id="list"),
        pytest.param(lambda each: each.tobytes(), id="bytes"),
        pytest.param(lambda each: memoryview(each).toreadonly(), id="read-only"),
        pytest.param(lambda _: None, id="nothing"),
    ],
)
def test_outputs_that_are_none(model: _forward.Model, wrong: Callable[[Any], Any]) -> None:
    """An output that is not a writable, contiguous array of the right size and type is refused, whichever it is."""
    right = [np.zeros(5, np.float32), np.zeros((5, 6), np.float32), np.zeros((5, 4), np.float32)]
    for position in range(3):
        given = [each if i != position else wrong(each) for i, each in enumerate(right)]
        with pytest.raises((TypeError, ValueError, BufferError)):
            model.run((REQUEST.arrays,), given[0], (given[1], given[2]))
    assert not any(each.any() for each in right)


@pytest.mark.parametrize(
    "attention",
    [
        pytest.param((np.zeros((5, 5), np.float32), np.zeros((5, 4), np.float32)), id="ids-too-narrow"),
        pytest.param((np.zeros((5, 6), np.float32), np.zeros((5, 3), np.float32)), id="tags-too-narrow"),
        pytest.param((np.zeros((5, 6), np.float32), np.zeros((5, 0), np.float32)), id="no-columns"),
        pytest.param((np.zeros((5, 6), np.float32), np.zeros((6, 4), np.float32)), id="too-many-rows"),
        pytest.param((np.zeros((6, 5), np.float32).T, np.zeros((5, 4), np.float32)), id="transposed"),
        pytest.param((np.zeros(30, np.float32), np.zeros(20, np.float32)), id="flat"),
        pytest.param((np.zeros((5, 6), np.float32),), id="one"),
        pytest.param((np.zeros((5, 6), np.float32),) * 3, id="three"),
        pytest.param((), id="none"),
        pytest.param([np.zeros((5, 6), np.float32)] * 2, id="list"),
        pytest.param(np.zeros((2, 5, 6), np.float32), id="array"),
        pytest.param(0, id="number"),
    ],
)
def test_attention_that_is_none(model: _forward.Model, attention: Any) -> None:
    """Attention is a tuple of an array for each pair, as wide as the longest history at least, or refused."""
    with pytest.raises((TypeError, ValueError, BufferError)):
        model.run((REQUEST.arrays,), outputs(), attention)


def test_wrong_number_of_arguments(model: _forward.Model) -> None:
    """Arguments too few, too many or by unknown names are refused."""
    calls: list[Any] = [
        model.run,
        lambda: model.run(()),  # type: ignore[call-arg]
        lambda: model.run((), outputs(0), None, None),  # type: ignore[call-arg]
        _forward.Model,
        lambda: _forward.Model(*ARGUMENTS, "plain", None),  # type: ignore[call-arg]
        lambda: _forward.Model(*ARGUMENTS, speed="plain"),  # type: ignore[call-arg]
        _forward.fingerprint,
        lambda: _forward.fingerprint("text"),  # type: ignore[arg-type]
        lambda: _forward.fingerprint(bytearray(b"text")),  # type: ignore[arg-type]
        lambda: _forward.levels(1),  # type: ignore[call-arg]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), NESTED),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_object_as_arguments(model: _forward.Model, changes: list[tuple[Path, Any]]) -> None:
    """Any object anywhere in the arguments of a call is refused by an exception, or taken for what it is."""
    arguments: Any = (
        (REQUEST.arrays,) * 2,
        outputs(10),
        (np.empty((10, 6), np.float32), np.empty((10, 4), np.float32)),
    )
    for path, new in changes:
        arguments = replaced(arguments, path, new)
    with suppress(*REFUSED):
        model.run(*arguments)
