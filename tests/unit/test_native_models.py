"""Networks that are wrong, given to the C code: a Python exception each time."""

import copy
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service.engine.native import _forward
from tests.unit import raw
from tests.unit.hostile import (
    ARGUMENTS,
    EXAMPLES,
    MAP,
    NESTED,
    REFUSED,
    REQUEST,
    Path,
    misaligned,
    paths,
    place,
    replaced,
)

PLACES = [path for path in paths(ARGUMENTS) if path]
TUPLES = [path for path in PLACES if isinstance(place(ARGUMENTS, path), tuple)]
ARRAYS = [path for path in PLACES if isinstance(place(ARGUMENTS, path), np.ndarray) and place(ARGUMENTS, path).size]


def fits(path: Path, new: Any, each: Any) -> bool:
    """Whether an array is as good as the one it replaces.

    A table may have any number of rows that its map stays in, unless biases follow; a map any number of buckets.
    """
    if new is None and path in {(2,), MAP}:
        return True  # without biases, without a map
    if not isinstance(new, np.ndarray) or new.dtype != each.dtype or not (new.flags.c_contiguous and new.flags.aligned):
        return False
    table = path[0] == 0 and path[2:] in {(0,), (1,)} and path != (0, 0, 1)
    least = place(ARGUMENTS, MAP).max() + 1 if path == (0, 0, 0) else 1
    free = (table or path == MAP) and new.shape[1:] == each.shape[1:] and len(new) >= least
    return new.shape == each.shape or free


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda _: None, id="nothing"),
        pytest.param(lambda each: each[:-1].copy(), id="a-row-less"),
        pytest.param(lambda each: np.concatenate([each, each]), id="twice"),
        pytest.param(lambda each: each[:0].copy(), id="empty"),
        pytest.param(lambda each: np.empty((0, *each.shape), np.float32), id="an-axis-of-none"),
        pytest.param(lambda each: each[None], id="an-axis-more"),
        pytest.param(lambda each: each[..., None], id="a-column"),
        pytest.param(lambda each: each[0], id="an-axis-less"),
        pytest.param(lambda each: each.astype(np.float64), id="float64"),
        pytest.param(lambda each: each.astype(">f4"), id="other-byte-order"),
        pytest.param(lambda each: each.astype(np.int32), id="int32"),
        pytest.param(lambda each: each.astype(object), id="objects"),
        pytest.param(misaligned, id="misaligned"),
        pytest.param(lambda each: np.repeat(each, 2, 0)[::2], id="every-second"),
        pytest.param(lambda each: np.broadcast_to(each[:1], (1 << 40, *each.shape[1:])), id="broadcast-terabytes"),
        pytest.param(lambda each: each.tolist(), id="list"),
        pytest.param(lambda each: each.tobytes(), id="bytes"),
    ],
)
def test_weights_that_are_none(wrong: Callable[[Any], Any]) -> None:
    """An array of weights of another shape, type or place in memory is refused, whichever it is."""
    for path in ARRAYS:
        each = place(ARGUMENTS, path)
        new = wrong(each)
        if fits(path, new, each):
            continue
        with pytest.raises((TypeError, ValueError, BufferError)):
            _forward.Model(*replaced(ARGUMENTS, path, new))


@pytest.mark.parametrize("path", [pytest.param(path, id="-".join(map(str, path))) for path in TUPLES])
def test_structure_that_is_none(path: Path) -> None:
    """A list, a text or a number where a tuple stands is refused, and so is a tuple that is empty or too long."""
    each = place(ARGUMENTS, path)
    for new in (list(each), "text", 1, (), each + each[:1] * 2, None):
        if new is None and len(path) == 3:
            continue  # a pair without attention is one with mean pooling
        with pytest.raises((TypeError, ValueError)):
            _forward.Model(*replaced(ARGUMENTS, path, new))


@pytest.mark.parametrize("activation", [-1, 5, 2**31 - 1, -(2**31), 2**40, "relu", None, 1.0])
def test_unknown_activation(activation: Any) -> None:
    """An activation that is none is refused in every layer, and so is one in the last layer of a network."""
    for path in [path for path in PLACES if isinstance(place(ARGUMENTS, path), int) and path[-1] == 2]:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            _forward.Model(*replaced(ARGUMENTS, path, activation))
    with pytest.raises(ValueError, match="last layer"):
        _forward.Model(*replaced(ARGUMENTS, (1, 2, 2), 1))


def test_numbers_that_are_none() -> None:
    """NaN and infinity in weights are computed with, and the answer is whatever it is."""
    for path in [path for path in ARRAYS if path != MAP]:
        for value in (np.nan, np.inf, -np.inf, 3e38):
            doctored = _forward.Model(*replaced(ARGUMENTS, path, np.full_like(place(ARGUMENTS, path), value)))
            raw.run(doctored, [REQUEST])


def test_model_is_no_value() -> None:
    """A model is neither copied, pickled, subclassed nor made around its constructor: its memory has one owner."""
    model = _forward.Model(*ARGUMENTS)
    for call in (copy.copy, copy.deepcopy, pickle.dumps, lambda each: object.__new__(type(each))):
        with pytest.raises(TypeError):
            call(model)
    with pytest.raises(TypeError):
        type("Derived", (_forward.Model,), {})
    with pytest.raises(AttributeError):
        model.level = "plain"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("level", "refusal"),
    [
        pytest.param("avx1024", ValueError, id="unknown"),
        pytest.param("", ValueError, id="empty"),
        pytest.param("plain\0", ValueError, id="zero-byte"),
        pytest.param("\ud800", UnicodeEncodeError, id="surrogate"),
        pytest.param(b"plain", TypeError, id="bytes"),
        pytest.param(1, TypeError, id="number"),
    ],
)
def test_unknown_level(level: Any, refusal: type[Exception]) -> None:
    """A level that this machine does not have is refused."""
    with pytest.raises(refusal):
        _forward.Model(*ARGUMENTS, level)


@given(st.lists(st.tuples(st.sampled_from(PLACES), NESTED), min_size=1, max_size=2))
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_object_as_weights(changes: list[tuple[Path, Any]]) -> None:
    """Any object anywhere in a network is refused by an exception, or makes a model that runs."""
    arguments = ARGUMENTS
    for path, new in changes:
        arguments = replaced(arguments, path, new)
    with suppress(*REFUSED):
        raw.run(_forward.Model(*arguments), [REQUEST])
