"""A catalog of real items behind a real server."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import Result

from tests import readme
from tests.servers import StartServer

MOVIELENS = readme.ROOT.parent / "shared" / "data" / "ml-latest-small"
COMMITTED = readme.ROOT / "model_artifacts" / "din"
# What the README asks about, with the tags that it gives.
FULL: dict[str, Any] = {
    "history": {"ids": [1, 3114, 4886, 6377], "tags": [3, 3, 3, 3]},
    "candidates": {"ids": [8961, 296, 1258, 318], "tags": [2, 6, 12, 7]},
    "top_k": 2,
    "explain": True,
}
BARE = FULL | {name: {"ids": FULL[name]["ids"]} for name in ("history", "candidates")}


@pytest.mark.skipif(not MOVIELENS.exists(), reason=f"{MOVIELENS} is missing")
@pytest.mark.parametrize("engine", ["native", "tensorflow"])
def test_movielens_needs_ids_alone(
    dinserve: Callable[..., Result], start_server: StartServer, tmp_path: Path, engine: str
) -> None:
    """With the catalog that `dinserve catalog` writes, ids get what ids and tags get, and titles are searched."""
    if engine == "native":
        pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")
    file = tmp_path / "catalog.csv"
    assert dinserve("catalog", "--data", MOVIELENS, "--out", file).output == f"9742 items in {file}\n"
    with start_server(COMMITTED, catalog=file, engine=engine) as server:
        full, bare = server.score(FULL).json(), server.score(BARE).json()
        assert bare["probabilities"] == pytest.approx(full["probabilities"], abs=1e-6)
        assert bare["attention"] == full["attention"]
        attention = bare["attention"]
        assert attention["candidates"] == bare["ranking"]
        for row in (*attention["ids"], *attention["tags"]):
            assert (len(row), sum(row)) == (4, pytest.approx(1, abs=1e-5))
        for n, (removed, without) in enumerate(zip(attention["removed"], attention["without"], strict=True)):
            assert attention["ids"][n][removed] == max(attention["ids"][n])
            left = [each for place, each in enumerate(BARE["history"]["ids"]) if place != removed]
            again = server.score(BARE | {"history": {"ids": left}, "explain": False}).json()["probabilities"]
            assert without == pytest.approx(again[attention["candidates"][n]], abs=1e-6)
        found = httpx2.get(server.url + "/catalog", params={"query": "toy story", "limit": 3}).json()
        assert found["total"] == 9742
        assert found["items"][0] == {"id": 1, "tag": 3, "title": "Toy Story (1995)"}
        assert {**found, "items": found["items"][:1]} in [json.loads(block) for block in readme.fenced("json")]
        assert [each["title"] for each in found["items"]][1:] == ["Toy Story 2 (1999)", "Toy Story 3 (2010)"]
        asked = httpx2.get(server.url + "/catalog", params={"ids": "3114,99999999,1"}).json()["items"]
        assert [each["id"] for each in asked] == [3114, 1]


def test_workers_follow_the_file(
    movielens: Path, dinserve: Callable[..., Result], start_server: Any, tmp_path: Path
) -> None:
    """Each of two workers takes a new catalog, keeps it when the next one is bad, and says so."""
    file = tmp_path / "catalog.csv"
    dinserve("catalog", "--data", movielens, "--out", file)
    with start_server(COMMITTED, catalog=file, workers=2, poll_s=0.1) as server:
        server.poll("/health", lambda response: response.json()["status"] == "ok")
        with file.open() as rows:
            kept = list(csv.reader(rows))[:11]
        put(file, kept)
        every(server, lambda: httpx2.get(server.url + "/catalog").json()["total"] == 10)
        put(file, [*kept, ["x", "1", "Movie x"]])
        problem = "catalog.csv: line 12, column id: 'x' is not an integer"
        every(server, lambda: httpx2.get(server.url + "/health").json()["checks"]["catalog"]["detail"] == problem)
        answer = server.score({"history": {"ids": [1]}, "candidates": {"ids": [2, 77]}})
        assert answer.status_code == 200
        metrics = httpx2.get(server.url + "/metrics").text
        assert "din_catalog_items 10.0" in metrics
        assert 'din_catalog_loads_total{result="refused"} 2.0' in metrics
        assert "din_catalog_unknown_ids_total 1.0" in metrics


def put(file: Path, rows: list[list[str]]) -> None:
    """Put a whole file in the place of another."""
    aside = file.with_name("aside.csv")
    with aside.open("w") as opened:
        csv.writer(opened).writerows(rows)
    aside.replace(file)


def every(server: Any, done: Callable[[], bool]) -> None:
    """Wait until twenty connections in a row, whichever worker takes each, find it done."""
    server.poll("/health", lambda _: all(done() for _ in range(20)))
