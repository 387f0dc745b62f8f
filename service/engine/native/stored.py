"""Where a checkpoint's variables lie in its files, and reading them from there: without TensorFlow, a piece at a time.

A checkpoint is `variables.index`, a sorted table (LevelDB's format, which TensorFlow writes uncompressed) from names to
`BundleEntryProto`, and files of data, in which a variable is its bytes, little-endian and row by row.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from service.engine.native.weights import Array

_MAGIC: Final = bytes.fromhex("57fb808b247547db")
_FOOTER: Final = 48  # bytes: handles of two blocks, and the magic number
_PIECE = 1 << 20  # bytes: half a millisecond
_REST = 3  # times as long as a piece took: a quarter of a core

Handle: TypeAlias = tuple[int, int]  # of a block: offset and size


class Place(NamedTuple):
    """Where an array is."""

    file: str  # in the checkpoint's folder
    offset: int  # in bytes
    dtype: str
    shape: Sequence[int]


def find(folder: Path, keys: Sequence[str], arrays: Sequence[Array]) -> list[Place] | None:
    """Where in its checkpoint the variables are that were read from it by these keys; None if that cannot be told.

    Every byte is compared: whoever reads from there reads the same.
    """
    from google.protobuf.message import DecodeError

    try:
        entries = dict(_entries((folder / "variables.index").read_bytes()))
        places = [_place(entries, key, array) for key, array in zip(keys, arrays, strict=True)]
        same = all(_lies_at(folder, place, array) for place, array in zip(places, arrays, strict=True))
    except (OSError, ValueError, LookupError, DecodeError):
        return None
    return places if same and sys.byteorder == "little" else None


def read(folder: Path, places: Sequence[Place], rest: float = _REST) -> list[Array]:
    """The arrays of a checkpoint that are there, new ones, which hold up nobody while they are read.

    That takes pieces, without the interpreter's lock, and rests between them, `rest` times as long as a piece took CPU.

    Raises:
        OSError: a file is not there.
        ValueError: it ends too early.
    """
    arrays: list[Array] = []
    for place in places:
        array: Array = np.empty(place.shape, place.dtype)
        with (folder / place.file).open("rb", buffering=0) as file:
            file.seek(place.offset)
            target = _bytes(array).data
            for at in range(0, len(target), _PIECE):
                used_s = time.thread_time()
                piece = target[at : at + _PIECE]
                if file.readinto(piece) != len(piece):
                    raise ValueError(f"{place.file}: ends too early")
                time.sleep(rest * (time.thread_time() - used_s))
        arrays.append(array)
    return arrays


def _lies_at(folder: Path, place: Place, array: Array) -> bool:
    [found] = read(folder, [place], 0)  # one at a time: all of a version is in memory already
    return np.array_equal(_bytes(found), _bytes(array))


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _place(entries: Mapping[str, bytes], key: str, array: Array) -> Place:
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

    files, entry = BundleHeaderProto.FromString(entries[""]).num_shards, BundleEntryProto.FromString(entries[key])
    file = f"variables.data-{entry.shard_id:05d}-of-{files:05d}"
    return Place(file, entry.offset, array.dtype.str, array.shape)


def _entries(table: bytes) -> Iterator[tuple[str, bytes]]:
    """The names and values of a table."""
    if table[-len(_MAGIC) :] != _MAGIC:
        raise ValueError("not a table")
    _, at = _handle(table, len(table) - _FOOTER)  # of what else there is to know
    index, _ = _handle(table, at)
    for _, value in _block(table, index):
        handle, _ = _handle(value, 0)
        for key, entry in _block(table, handle):
            yield key.decode(), entry


def _block(table: bytes, handle: Handle) -> Iterator[tuple[bytes, bytes]]:
    """What is in a block; each key leaves out what it begins with like the one before it."""
    offset, size = handle
    block = table[offset : offset + size]
    if table[offset + size] != 0:
        raise ValueError("compressed")
    end = size - 4 * (1 + int.from_bytes(block[-4:], "little"))  # restarts, and how many they are
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[Handle, int]:
    """Where a block is, and where what tells that ends."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1
