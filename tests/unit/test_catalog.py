"""The catalog: read from files of every kind, looked up, searched, and kept when its file goes bad."""

import os
import sys
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact import Feature, Features, Manifest, write_manifest
from service.catalog import Catalog, Item, default_tag
from service.catalog_file import CatalogFile, make_catalog, read_catalog
from service.config import Settings
from service.errors import DataError, SettingsError

NUMBERS, STRINGS = ("int64", "int64"), ("string", "string")
FILMS = [
    Item(1, 3, "Toy Story (1995)"),
    Item(3114, 3, "Toy Story 2 (1999)"),
    Item(7, 2, "A Toyless story"),
    Item(8, 2, "Destroy All Toys"),
    Item(1995, 4, None),
    Item(9, 4, "Café\nÉtoile"),
]


@pytest.fixture
def films() -> Catalog:
    """A few films."""
    return Catalog(NUMBERS, FILMS)


def manifest_of(id_dtype: str, tag_dtype: str, default: Any = None) -> Manifest:
    """A manifest of these dtypes."""
    kinds = [
        Feature.model_validate({"dtype": dtype, "buckets": 8, "dimension": 2, "max_history": 4, "default": each})
        for dtype, each in ((id_dtype, None), (tag_dtype, default))
    ]
    return Manifest(version="1", created="", features=Features(id=kinds[0], tag=kinds[1]))


def write(folder: Path, text: str | bytes, name: str = "items.csv") -> Path:
    """Write a file."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


@pytest.mark.parametrize(
    ("text", "dtypes", "items"),
    [
        pytest.param(
            "id,tag,title\n1,-3,Toy Story\n2,4,\n", NUMBERS, [Item(1, -3, "Toy Story"), Item(2, 4, None)], id="int64"
        ),
        pytest.param('title,x,tag,id\n"a, b",?,007,1e3\n', STRINGS, [Item("1e3", "007", "a, b")], id="strings"),
        pytest.param("id,tag\n1,7\n", ("int64", "string"), [Item(1, "7", None)], id="no-title"),
        pytest.param("\ufeffid,tag\n\n1,7\n\n", NUMBERS, [Item(1, 7, None)], id="byte-order-mark-and-blank-lines"),
        pytest.param(f"id,tag\n{2**63 - 1},{-(2**63)}\n", NUMBERS, [Item(2**63 - 1, -(2**63), None)], id="extremes"),
    ],
)
def test_csv_is_read(tmp_path: Path, text: str, dtypes: tuple[str, str], items: list[Item]) -> None:
    """Columns in any order, others beside them, become items of the types that the model takes."""
    catalog = read_catalog(write(tmp_path, text), dtypes)
    assert len(catalog) == len(items)
    assert catalog.find([item.id for item in items]) == items


@pytest.mark.parametrize(
    ("columns", "dtypes", "items"),
    [
        pytest.param(
            {"id": [1, 2], "tag": [3, 4], "title": ["a", None]},
            NUMBERS,
            [Item(1, 3, "a"), Item(2, 4, None)],
            id="int64",
        ),
        pytest.param({"tag": [3], "id": [1], "x": [0.5]}, STRINGS, [Item("1", "3", None)], id="integers-as-text"),
        pytest.param({"id": ["1"], "tag": ["t"]}, ("int64", "string"), [Item(1, "t", None)], id="text-as-integers"),
    ],
)
def test_parquet_is_read(tmp_path: Path, columns: dict[str, Any], dtypes: tuple[str, str], items: list[Item]) -> None:
    """A Parquet file's columns become the same, whether it has integers or text."""
    pl.DataFrame(columns).write_parquet(tmp_path / "items.parquet")
    assert read_catalog(tmp_path / "items.parquet", dtypes).find([item.id for item in items]) == items


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("id,tag,title\n", "has no rows", id="header-only"),
        pytest.param("id,title\n1,a\n", "has no column tag; its columns are id, title", id="no-tag"),
        pytest.param("id,tag,id\n1,2,3\n", "line 1, column id: appears twice in the header", id="column-twice"),
        pytest.param("id,tag\n1,2\n\n1,3\n", "line 4, column id: 1 appears twice", id="id-twice"),
        pytest.param("id,tag\n1,2\n01,3\n", "line 3, column id: 1 appears twice", id="id-written-otherwise"),
        pytest.param("id,tag\n1,x\n", "line 2, column tag: 'x' is not an integer", id="no-integer"),
        pytest.param("id,tag\n1.0,2\n", "line 2, column id: '1.0' is not an integer", id="fraction"),
        pytest.param("id,tag\n1,2\n,3\n", "line 3, column id: is empty", id="no-id"),
        pytest.param("id,tag\n1,\n", "line 2, column tag: is empty", id="empty-tag"),
        pytest.param(f"id,tag\n{2**63},1\n", "does not fit in 64 bits", id="beyond-int64"),
        pytest.param(f"id,tag\n{'9' * 5000},1\n", "line 2, column id: '9", id="endless"),
        pytest.param("id,tag\n1,2,3\n", "line 2: has 3 fields, the header has 2", id="too-many-fields"),
        pytest.param("id,tag\n1\n", "line 2: has 1 fields, the header has 2", id="too-few-fields"),
        pytest.param('id,tag\n"1,2\n', "line 2: is not valid CSV", id="open-quote"),
        pytest.param(b"id,tag\n1,2\n\xff,3\n", "line 3: is not UTF-8", id="not-utf-8"),
    ],
)
def test_bad_csv_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    """What is wrong with a file is said by file, line and column, and never at length."""
    with pytest.raises(DataError) as caught:
        read_catalog(write(tmp_path, text), NUMBERS)
    assert str(caught.value).startswith("items.csv: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param({"id": [1]}, "items.parquet: has no column tag; its columns are id", id="no-tag"),
        pytest.param({"id": [1, 1], "tag": [1, 2]}, "items.parquet: row 2, column id: 1 appears twice", id="twice"),
        pytest.param({"id": [1, None], "tag": [1, 2]}, "items.parquet: row 2, column id: is empty", id="null"),
        pytest.param({"id": [1.5], "tag": [1]}, "items.parquet: column id: is Float64, not integers or", id="fraction"),
        pytest.param({"id": ["a"], "tag": [1]}, "items.parquet: row 1, column id: 'a' is not an integer", id="text"),
        pytest.param({"id": [1], "tag": [1], "title": [1]}, "column title: is Int64, not strings", id="title"),
        pytest.param(
            {"id": [2**63], "tag": [1]}, "items.parquet: row 1, column id: 9223372036854775808 does", id="large"
        ),
        pytest.param({"id": [], "tag": []}, "items.parquet: column id: is Null, not integers or strings", id="empty"),
    ],
)
def test_bad_parquet_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    """What is wrong with a file is said by file, row and column."""
    pl.DataFrame(columns).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=message):
        read_catalog(tmp_path / "items.parquet", NUMBERS)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    """A Parquet file cut off anywhere, or with any byte altered, is read or refused, and nothing else happens."""
    path = tmp_path / "items.parquet"
    pl.DataFrame({"id": range(50), "tag": range(50), "title": ["a"] * 50}).write_parquet(path)
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(0, len(whole), 37)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(0, len(whole), 11)]
    problems = []
    for content in damaged:
        path.write_bytes(content)
        try:
            read_catalog(path, NUMBERS)
        except DataError as error:
            problems.append(str(error))
    assert len(problems) > len(damaged) / 3
    assert all(problem.startswith("items.parquet: ") for problem in problems)


@pytest.mark.parametrize("name", ["items.txt", "items", "csv"])
def test_other_kinds_of_file_are_refused(tmp_path: Path, name: str) -> None:
    """Only names that say what the file is are taken."""
    with pytest.raises(DataError, match=r"is neither \.csv, \.csv\.gz nor \.parquet"):
        read_catalog(write(tmp_path, "id,tag\n1,2\n", name), NUMBERS)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A file that is missing, a folder and a pipe are refused, and none is waited for."""
    with pytest.raises(DataError, match=r"missing.csv: cannot be read: No such file"):
        read_catalog(tmp_path / "missing.csv", NUMBERS)
    with pytest.raises(DataError, match=r"missing.parquet: cannot be read: .*No such file"):
        read_catalog(tmp_path / "missing.parquet", NUMBERS)
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.parquet")
    for name in ("folder.csv", "pipe.parquet"):
        with pytest.raises(DataError, match=f"{name}: is not a regular file"):
            read_catalog(tmp_path / name, NUMBERS)


def test_parquet_without_polars_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where polars is not installed, the message says how to install it."""
    monkeypatch.setitem(sys.modules, "polars", cast("Any", None))
    with pytest.raises(DataError, match=r"pip install 'dinserve\[catalog\]'"):
        read_catalog(write(tmp_path, b"PAR1", "items.parquet"), NUMBERS)


def test_tags_are_found(films: Catalog) -> None:
    """Each id gets its tag, an unknown one the default, and the unknown are counted."""
    assert films.find_tags([3114, 1, 7, 1], 0) == ([3, 3, 2, 3], 0)
    assert films.find_tags([2, 1, 2**70, -5], 99) == ([99, 3, 99, 99], 3)
    assert films.find_tags([], 0) == ([], 0)


def test_unknown_items_are_left_out(films: Catalog) -> None:
    """Items come in the order asked for, repeated if asked twice, without those that are unknown."""
    assert films.find([7, 2, 1, 7]) == [FILMS[2], FILMS[0], FILMS[2]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("toy", [1, 3114, 7, 8], id="begin-first"),
        pytest.param("STORY", [7, 1, 3114], id="whatever-the-case"),
        pytest.param("toy  story", [1, 3114], id="however-many-spaces"),
        pytest.param("troy", [8], id="inside-a-word"),
        pytest.param("oy", [7, 8, 1, 3114], id="inside-of-all"),
        pytest.param("to", [1, 3114, 7, 8, 9], id="begin-of-a-word-next"),
        pytest.param("1995", [1995, 1], id="id-first"),
        pytest.param("(19", [1, 3114], id="no-letter"),
        pytest.param(" 7 ", [7], id="id-only"),
        pytest.param("café étoile", [9], id="over-the-end-of-a-line"),
        pytest.param("CAFÉ", [9], id="accents"),
        pytest.param(".*", [], id="no-pattern"),
        pytest.param("", [1995, 7, 9, 8, 1, 3114], id="nothing-asked"),
        pytest.param("story\ntoy", [], id="over-the-end-of-a-title"),
        pytest.param("9" * 30, [], id="endless-number"),
    ],
)
def test_search_finds_by_title(films: Catalog, text: str, found: list[int]) -> None:
    """The item with that id comes first, then titles that begin so, then words that do, then the rest."""
    assert [item.id for item in films.search(text, 10)] == found
    assert [item.id for item in films.search(text, 2)] == found[:2]


def test_ids_of_text_are_searched() -> None:
    """Where ids are text, one that is written exactly so comes first, whatever it looks like."""
    catalog = Catalog(STRINGS, [Item("a", "x", "b"), Item("b", "x", "a"), Item("ab", "x", None)])
    assert [item.id for item in catalog.search("a", 9)] == ["a", "b", "ab"]


@given(st.lists(st.text("ab .", max_size=4), max_size=600), st.text("ab .", max_size=3), st.integers(1, 9))
def test_search_is_what_it_says(titles: list[str], text: str, limit: int) -> None:
    """However many items there are, a search finds what looking at every title in order does."""
    items = [Item(n, 0, title or None) for n, title in enumerate(titles)]
    wanted = " ".join(text.split())
    labels = sorted((" ".join((item.title or str(item.id)).split()), item.id) for item in items)
    heads = [each for label, each in labels if label.startswith(wanted)]
    begins = [each for label, each in labels if f" {wanted}" in f" {label}" or f".{wanted}" in label]
    others = [each for label, each in labels if wanted in label]
    expected = list(dict.fromkeys([*heads, *begins, *others]))[:limit]
    assert [item.id for item in Catalog(NUMBERS, items).search(text, limit)] == expected


@pytest.mark.parametrize(
    ("dtype", "default", "tag"),
    [
        pytest.param("int64", 7, 7, id="number"),
        pytest.param("int64", None, 0, id="no-number"),
        pytest.param("string", "drama", "drama", id="text"),
        pytest.param("string", None, "", id="no-text"),
    ],
)
def test_default_is_the_manifest_s(dtype: str, default: Any, tag: Any) -> None:
    """An unknown item takes the tag that the manifest says, else nothing's."""
    assert default_tag(manifest_of("int64", dtype, default)) == tag


def test_file_is_read_when_it_changes(tmp_path: Path) -> None:
    """A changed file is read once, a bad one leaves the catalog as it was, and a good one ends that."""
    path = write(tmp_path, "id,tag\n1,2\n")
    file = CatalogFile(path)
    file.read(NUMBERS)
    first = file.current
    assert file.refresh(NUMBERS) is None
    assert file.check() == {"ok": True, "detail": "items: 1"}
    write(tmp_path, "id,tag\n1,2\n1,2\n")
    assert file.refresh(NUMBERS) is False
    assert file.refresh(NUMBERS) is None
    assert file.current is first
    assert file.check() == {"ok": False, "detail": "items.csv: line 3, column id: 1 appears twice"}
    path.unlink()
    assert file.refresh(NUMBERS) is False
    assert file.refresh(NUMBERS) is None
    assert (file.current is first, "No such file" in str(file.problem)) == (True, True)
    write(tmp_path, "id,tag\n1,2\n2,2\n")
    assert file.refresh(NUMBERS) is True
    assert (len(file), file.problem) == (2, None)


def test_file_is_read_as_other_types(tmp_path: Path) -> None:
    """When another version takes other types, the same file is read as those."""
    file = CatalogFile(write(tmp_path, "id,tag\n1,2\n"))
    file.read(NUMBERS)
    assert file.refresh(STRINGS) is True
    assert file.current is not None
    assert file.current.fits(manifest_of(*STRINGS))
    assert not file.current.fits(manifest_of(*NUMBERS))
    assert file.current.find(["1"]) == [Item("1", "2", None)]


def test_settings_name_a_bad_catalog(tmp_path: Path) -> None:
    """At the start a catalog is read as the highest readable version wants it, and a bad one is the setting's fault."""
    path = write(tmp_path, "id,tag\na,2\n")
    settings = Settings(model_dir=tmp_path / "din", catalog=path)
    assert make_catalog(Settings(model_dir=tmp_path / "din")) is None
    waiting = make_catalog(settings)
    assert waiting is not None
    assert (waiting.current, waiting.check()["ok"]) == (None, False)
    for version, dtype in (("1", "string"), ("2", "int64"), ("3", "string")):
        (tmp_path / "din" / version).mkdir(parents=True)
        manifest = manifest_of(dtype, "int64").model_copy(update={"version": version})
        write_manifest(tmp_path / "din" / version, manifest)
    read = make_catalog(settings)
    assert read is not None
    assert len(read) == 1
    (tmp_path / "din" / "3" / "manifest.json").write_text("{")
    with pytest.raises(SettingsError) as caught:
        make_catalog(settings)
    assert str(caught.value) == f"DIN_CATALOG = {path}: items.csv: line 2, column id: 'a' is not an integer"
