"""Reads Thrift's compact protocol, in which Parquet writes its metadata, without knowing what the fields mean."""

import mmap
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

Fields: TypeAlias = dict[int, Any]  # by number: bool, int, bytes, list or Fields

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_LONG = 15  # a list's length that does not fit in four bits follows


def read_struct(content: "bytes | mmap.mmap", at: int = 0) -> tuple[Fields, int]:
    """The struct at `at`, and how many bytes it takes.

    Raises:
        IndexError: it does not end.
        ValueError: it is none.
        RecursionError: it is too deep.
    """
    reader = _Reader(content, at)
    return reader.struct(), reader.at - at


class _Reader:
    def __init__(self, content: "bytes | mmap.mmap", at: int) -> None:
        self.content = content
        self.at = at
        self._readings: dict[int, Callable[[], Any]] = {
            **dict.fromkeys((_TRUE, _FALSE, _BYTE), self._byte),  # a bool takes a byte where it is an element
            **dict.fromkeys(_INTEGERS, self._integer),
            **dict.fromkeys((_LIST, _SET), self._list),
            _DOUBLE: partial(self._take, 8),
            _BINARY: lambda: self._take(self._varint()),
            _MAP: self._map,
            _STRUCT: self.struct,
        }

    def struct(self) -> Fields:
        fields: Fields = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in {_TRUE, _FALSE} else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        reading = self._readings.get(kind)
        if reading is None:
            raise ValueError(f"no type has the number {kind}")
        return reading()

    def _list(self) -> list[Any]:
        head = self._byte()
        length = self._varint() if head >> 4 == _LONG else head >> 4
        return [self._value(head & 15) for _ in range(length)]

    def _map(self) -> list[tuple[Any, Any]]:
        length = self._varint()
        kinds = self._byte() if length else 0
        return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(length)]

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the high bit says that more follow
                return number
            shift += 7

    def _byte(self) -> int:
        byte: int = self.content[self.at]
        self.at += 1
        return byte

    def _take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.content):
            raise IndexError("beyond the end")
        taken: bytes = self.content[self.at : end]
        self.at = end
        return taken
