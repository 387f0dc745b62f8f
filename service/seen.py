"""Which item ids a version met in training: a Bloom filter, a file of the version that its manifest describes.

An id that was met is always found; of the others, about 1 % are taken for met.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveInt

from service.batch import Ids
from service.errors import ArtifactError

SEEN_IDS = "seen_ids.bin"
FALSE_POSITIVES = 0.01

_SPLIT = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: makes a second hash of the first


class Seen(BaseModel, frozen=True, extra="forbid"):
    """What the manifest says of the filter."""

    ids: PositiveInt  # distinct ones
    hashes: PositiveInt = Field(le=64)  # bits that each of them sets
    bits: PositiveInt = Field(multiple_of=8)


@dataclass(frozen=True, slots=True, eq=False)
class SeenIds:
    """The filter: bit b is bit b % 8, the lowest being 0, of byte b // 8."""

    seen: Seen
    content: NDArray[np.uint8]

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Whether each of the ids (N,) was met, or is taken for it."""
        places = _places(_hash(ids), self.seen)  # (hashes, N)
        found = self.content[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8)
        met: NDArray[np.bool_] = (found & 1).all(axis=0)
        return met


def make_seen(ids: Ids, false_positives: float = FALSE_POSITIVES) -> SeenIds:
    """A filter of `ids` (N,), at least one, int64 or bytes, of the best size for a rate of false positives."""
    hashed = np.unique(_hash(ids))
    bits_an_id = -math.log(false_positives) / math.log(2) ** 2
    seen = Seen(
        ids=len(hashed),
        hashes=max(1, round(bits_an_id * math.log(2))),
        bits=8 * math.ceil(len(hashed) * bits_an_id / 8),
    )
    bits = np.zeros(seen.bits, bool)
    for first in range(0, len(hashed), 1 << 16):  # all at once would take 8 bytes for each bit set
        bits[_places(hashed[first : first + (1 << 16)], seen)] = True
    return SeenIds(seen, np.packbits(bits, bitorder="little"))


def write_seen(version: Path, filtered: SeenIds) -> None:
    """Write the filter into a version's folder."""
    (version / SEEN_IDS).write_bytes(filtered.content.tobytes())


def read_seen(version: Path, seen: Seen | None) -> SeenIds | None:
    """Read the filter of a version whose manifest describes it so; None if it has none.

    Raises:
        ArtifactError: it is missing, or is not what the manifest describes.
    """
    if seen is None:
        return None
    path = version / SEEN_IDS
    try:
        size = path.stat().st_size
        if size * 8 != seen.bits:
            raise ArtifactError(f"{path}: holds {size * 8} bits, the manifest says {seen.bits}")
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    bits_set = int(np.bitwise_count(content).sum())
    if not 1 <= bits_set <= seen.ids * seen.hashes:
        raise ArtifactError(f"{path}: {bits_set} bits are set, which {seen.ids} ids cannot have done")
    return SeenIds(seen, content)


def _hash(ids: Ids) -> NDArray[np.uint64]:
    """64 bits of each id (N,): of a number the number itself, of bytes their BLAKE2b."""
    if ids.dtype != object:
        return ids.astype(np.int64, copy=False).view(np.uint64)
    digests = b"".join([hashlib.blake2b(each, digest_size=8).digest() for each in ids])
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def _places(hashed: NDArray[np.uint64], seen: Seen) -> NDArray[np.uint64]:
    """The bits of each hash, (hashes, N), from two that are mixed of it.

    Two are as good as many (Kirsch and Mitzenmacher, Less Hashing, Same Performance, ESA 2006).
    """
    first, second = _mix(hashed), _mix(hashed ^ _SPLIT)
    steps = np.arange(seen.hashes, dtype=np.uint64)[:, None]
    return (first + steps * (second | np.uint64(1))) % np.uint64(seen.bits)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each value over 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
