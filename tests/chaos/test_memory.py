"""What a real server holds after many versions and requests."""

import time
from pathlib import Path

import httpx2
import psutil

from benchmarks.kinds import Kinds
from tests.loads import TOKEN, admin, checked_load
from tests.servers import run_server

SECONDS = 120.0
SETTLED = 0.3  # of that time: caches, arenas and the like are as large as they get
GROWTH = 1.05


def test_soak(kinds: Kinds, tmp_path: Path) -> None:
    """Over two minutes of load, with a version loaded every second, resident memory does not grow by 5 %."""
    model_dir = tmp_path / "din"
    for version in (1, 2, 3):
        kinds.publish(model_dir, version)
    with run_server(tmp_path / "log", model_dir, poll_s=0, admin_token=TOKEN) as server:
        process = psutil.Process(server.process.pid)
        with checked_load(kinds, server) as found:
            started, held, loads = time.monotonic(), [], 0
            while (passed := time.monotonic() - started) < SECONDS:
                response = admin(server, "POST", f"versions/{1 + loads % 3}/activate")
                assert response.status_code == 200, response.text
                loads += 1
                time.sleep(1)  # the version that served before is freed
                held.append((passed, process.memory_info().rss))
        text = httpx2.get(server.url + "/metrics").text
    settled = next(rss for passed, rss in held if passed >= SETTLED * SECONDS)
    assert max(rss for passed, rss in held if passed >= SETTLED * SECONDS) <= GROWTH * settled
    assert found["errors"] == {}
    assert set(found["versions"]) == {"1", "2", "3"}
    assert loads > 30
    assert f'din_version_loads_total{{result="loaded"}} {loads + 1}.0' in text
