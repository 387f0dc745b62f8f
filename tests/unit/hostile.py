"""Objects that are not what the C code wants, and where to put them."""

import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from tests.unit.raw import as_tuples, draw_raw, make_network

Path: TypeAlias = tuple[int, ...]  # an index at each depth of nested tuples

EXAMPLES = int(os.environ.get("DIN_TEST_EXAMPLES", "400"))
REFUSED = (TypeError, ValueError, OverflowError, BufferError, MemoryError)

HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=40),
    st.builds(object),
    st.builds(
        lambda dtype, shape, fortran: np.zeros(shape, dtype, "F" if fortran else "C"),
        st.sampled_from(["f4", "f8", ">f4", "i8", "u8", "i4", "O", "S4", "?", "f4,f4", "m8[s]"]),
        st.lists(st.integers(0, 9) | st.sampled_from([18, 19, 36]), max_size=4),
        st.booleans(),
    ),
    st.builds(lambda shape: np.broadcast_to(np.float32(1), shape), st.lists(st.integers(0, 1 << 20), max_size=3)),
    st.binary(max_size=40).map(bytearray),
    st.binary(max_size=40).map(lambda each: memoryview(each)[:]),
)
NESTED = st.recursive(HOSTILE, lambda each: st.lists(each, max_size=6).map(tuple), max_leaves=12)


def misaligned(source: Any) -> Any:
    """The same values, a byte beyond where they should lie."""
    room = np.empty(source.nbytes + 1, np.uint8)
    room[1:] = np.frombuffer(source.tobytes(), np.uint8)
    return room[1:].view(source.dtype).reshape(source.shape)


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in nested tuples."""
    yield path
    if isinstance(value, tuple):
        for i, each in enumerate(value):
            yield from paths(each, (*path, i))


def place(value: Any, path: Path) -> Any:
    """What lies at a place."""
    return place(value[path[0]], path[1:]) if path else value


def replaced(value: Any, path: Path, new: object) -> Any:
    """Nested tuples with another object at one place, if there is such a place."""
    if not path:
        return new
    if not isinstance(value, tuple) or path[0] >= len(value):
        return value
    return (*value[: path[0]], replaced(value[path[0]], path[1:], new), *value[path[0] + 1 :])


ARGUMENTS = as_tuples(
    make_network(attention_activation="dice", head_activation="prelu", product=True, item_bias=True, maps={"id": 70})
)
MAP = (0, 0, 3)  # the first pair's; the second has none
REQUEST = draw_raw(np.random.default_rng(1), (6, 4), 5)
