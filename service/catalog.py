"""What is known of each item, its tag and its title: looked up by id, searched by title."""

import heapq
import re
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import TypeAlias, TypeVar

from service.artifact import Manifest

Value: TypeAlias = int | str

_BLOCK = 256  # titles searched, or items read, before others get the interpreter
_PAUSE_S = 1e-4
INTEGER = re.compile(r"-?[0-9]{1,19}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """What the catalog says of one item."""

    id: Value
    tag: Value
    title: str | None


@dataclass(frozen=True, slots=True)
class Block:
    """Some items that follow each other by title: what is searched of them, a line each, and their ids."""

    lines: str
    ids: list[Value]

    @property
    def first(self) -> str:
        """The first of its lines."""
        return self.lines.partition("\n")[0]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return zip(self.lines.split("\n"), self.ids, strict=True)


class Catalog:
    """Items by id and by title.

    Args:
        dtypes: of ids and tags, `int64` or `string` each.
        items: no two with one id.
    """

    def __init__(self, dtypes: tuple[str, str], items: Iterable[Item]) -> None:
        self.dtypes = dtypes
        self._tags: dict[Value, Value] = {}
        self._titles: dict[Value, str] = {}
        labels: list[tuple[str, Value]] = []
        for item in items:
            self._tags[item.id] = item.tag
            if item.title is not None:
                self._titles[item.id] = item.title
            labels.append((_fold(str(item.id) if item.title is None else item.title), item.id))
        self._blocks = [
            Block("\n".join([label for label, _ in block]), [each for _, each in block])
            for block in _split(_sort(labels), _BLOCK)
        ]

    def __len__(self) -> int:
        return len(self._tags)

    def fits(self, manifest: Manifest) -> bool:
        """Whether ids and tags are of the types that a version takes."""
        return self.dtypes == dtypes_of(manifest)

    def find_tags(self, ids: Sequence[Value], default: Value) -> tuple[list[Value], int]:
        """The tag of each id, `default` where it is unknown, and how many are unknown; 500 ids take 15 us."""
        tags = self._tags
        try:
            return list(map(tags.__getitem__, ids)), 0
        except KeyError:
            return list(map(tags.get, ids, repeat(default))), len(ids) - sum(map(tags.__contains__, ids))

    def find(self, ids: Iterable[Value]) -> list[Item]:
        """The known ones of some items, in that order."""
        return [Item(each, self._tags[each], self._titles.get(each)) for each in ids if each in self._tags]

    def search(self, text: str, limit: int) -> list[Item]:
        """The first `limit` items with `text` in their title, or in their id where they have none, whatever the case.

        First the one whose id it is, then those that begin so, then those that have it where a word begins, then the
        others, by title each.
        """
        wanted = _fold(text)
        found = dict.fromkeys([*self._named(text.strip()), *self._beginning(wanted, limit)])
        others: dict[Value, None] = {}
        anywhere = re.compile(re.escape(wanted))
        word = re.compile(rf"{anywhere.pattern}(?<!\w{anywhere.pattern})")  # so, regular expressions find literals fast
        for block in self._blocks:
            if len(found) >= limit:
                break
            if not (word if len(others) >= limit else anywhere).search(block.lines):
                continue
            for label, each in block:
                if word.search(label):
                    found[each] = None
                elif len(others) < limit and anywhere.search(label):
                    others[each] = None
        return self.find(list(found | others)[:limit])

    def _beginning(self, wanted: str, limit: int) -> list[Value]:
        """At least `limit` ids whose label begins so, or as many as there are; by label."""
        found: list[Value] = []
        first = bisect_left(self._blocks, wanted, key=attrgetter("first"))
        for block in self._blocks[max(0, first - 1) :]:
            found += [each for label, each in block if label.startswith(wanted)]
            if len(found) >= limit or (block.first > wanted and not block.first.startswith(wanted)):
                break
        return found

    def _named(self, text: str) -> list[Value]:
        """The id that is written so, if there is one."""
        if self.dtypes[0] == "string":
            return [text] if text in self._tags else []
        number = int(text) if INTEGER.fullmatch(text) else None
        return [number] if number in self._tags else []


def dtypes_of(manifest: Manifest) -> tuple[str, str]:
    """Of a version's ids and tags."""
    return manifest.features.id.dtype, manifest.features.tag.dtype


def default_tag(manifest: Manifest) -> Value:
    """What a version takes for the tag of an item of which nothing is known."""
    tag = manifest.features.tag
    if tag.default is not None:
        return tag.default
    return "" if tag.dtype == "string" else 0


def _fold(text: str) -> str:
    """What a title is searched by: one line, no upper case."""
    return " ".join(text.split()).casefold()


def _sort(labels: list[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
    """In order; one sort of a million would hold the interpreter for a second."""
    return pausing(heapq.merge(*(sorted(each) for each in _split(labels, 16 * _BLOCK))))


def _split(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut into lists of `size`, the last one shorter."""
    chunk: list[T] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def pausing(values: Iterable[T]) -> Iterator[T]:
    """The same, with a moment every now and then in which others, such as an event loop, have the interpreter."""
    for number, value in enumerate(values, 1):
        yield value
        if number % _BLOCK == 0:
            time.sleep(_PAUSE_S)
