"""A real Prometheus over the project's own rules, and what the dashboard asks it."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.image import ROOT
from tests.servers import LONGEST_S, free_port

FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "dinserve.json"
EVERY = "1s"


def rules() -> list[dict[str, Any]]:
    """Every rule."""
    files = [yaml.safe_load(file.read_text()) for file in sorted(FOLDER.glob("rules/*.yml"))]
    return list(chain.from_iterable(group["rules"] for file in files for group in file["groups"]))


def dashboard() -> Any:
    """The dashboard, as it is committed."""
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict[str, Any]]:
    """Its panels, rows left out."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """What the panels ask, by title and line, with all instances and versions chosen."""
    return {
        f"{panel['title']}, {target['refId']}": substitute(target["expr"])
        for panel in panels()
        for target in panel["targets"]
    }


def substitute(expression: str) -> str:
    """Put values in the place of Grafana's variables."""
    values = {"$instance": ".+", "$version": ".+", "$__rate_interval": "1m"}
    return re.sub(r"\$\w+", lambda found: values[found.group()], expression)


@dataclass(slots=True)
class Prometheus:
    """A running one."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        answer = httpx2.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now: `metric` has the labels, `value` the time and the number."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float:
        """The value of an expression that is one series."""
        (series,) = self.query(expression)
        return float(series["value"][1])


@contextmanager
def run_prometheus(folder: Path, port: int) -> Iterator[Prometheus]:
    """Run Prometheus over a server's port for the length of a `with`; skips the test where there is none.

    It has the project's configuration and rules, but looks at this server, and looks and computes every second.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not here")
    shutil.copytree(FOLDER, folder)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"].update(scrape_interval=EVERY, scrape_timeout=EVERY, evaluation_interval=EVERY)
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    for rule_file in folder.glob("rules/*.yml"):
        rule_file.write_text(re.sub(r"interval: \w+", f"interval: {EVERY}", rule_file.read_text()))
    own = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    flags = [f"--web.listen-address={own}", "--enable-feature=exemplar-storage", "--log.level=warn"]
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen([*command, *flags], stderr=file) as process:
        try:
            _wait(process, f"http://{own}/-/ready", log)
            yield Prometheus(f"http://{own}")
        finally:
            process.terminate()
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < LONGEST_S:
        with suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"prometheus ended with status {process.wait(0.1)}:\n{log.read_text()}")
    pytest.fail(f"prometheus did not become ready:\n{log.read_text()}")
