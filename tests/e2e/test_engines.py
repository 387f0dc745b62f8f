"""Which engine serves, and what a server says when it is not the one that was preferred."""

import re
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service import artifact
from tests.servers import StartServer


@pytest.fixture
def made_elsewhere(exported: Any, tmp_path: Path) -> Path:
    """A model folder whose version does not say what network it holds, as one of another exporter would."""
    model_dir = Path(shutil.copytree(exported.model_dir, tmp_path / "din"))
    manifest = artifact.read_manifest(model_dir / "1")
    artifact.write_manifest(model_dir / "1", manifest.model_copy(update={"architecture": None}))
    return model_dir


def reason(model_dir: Path) -> str:
    """Why the native engine cannot serve that."""
    return f"{model_dir / '1' / 'manifest.json'}: architecture: not given, so its weights cannot be told apart"


def test_native_engine_or_none(made_elsewhere: Path, start_server: StartServer) -> None:
    """Told to use the native engine for what it cannot compute, a server is not ready, and its health says why."""
    with start_server(made_elsewhere, ready=False, engine="native") as server:
        health = server.poll("/health", lambda response: response.json()["status"] != "loading")
        assert (health.status_code, health.json()["status"], health.json()["engine"]) == (503, "failed", None)
        assert health.json()["checks"]["model"] == {"ok": False, "detail": reason(made_elsewhere)}
        assert httpx2.get(server.url + "/health/live").status_code == 200


def test_other_engine_serves_instead(made_elsewhere: Path, start_server: StartServer) -> None:
    """Left to choose, a server scores with TensorFlow; its health, log, model page and metrics tell of the fallback."""
    with start_server(made_elsewhere, engine="auto") as server:
        health = server.poll("/health", lambda response: response.status_code == 200).json()
        told = f"loaded, but not with the native engine: {reason(made_elsewhere)}"
        assert (health["status"], health["engine"], health["checks"]["model"]["ok"]) == ("ok", "tensorflow", True)
        assert health["checks"]["model"]["detail"] == told
        golden = artifact.read_golden(made_elsewhere / "1").requests[0]
        answer = server.score(golden.model_dump(mode="json", include={"history", "candidates"})).json()
        assert answer["probabilities"] == pytest.approx(golden.probabilities, abs=1e-5)
        assert httpx2.get(server.url + "/model").json()["fallback_reason"] == reason(made_elsewhere)
        metrics = httpx2.get(server.url + "/metrics").text
        assert re.search(r"^din_engine_fallbacks_total 1\.0$", metrics, re.MULTILINE)
        assert f"serving with TensorFlow: {reason(made_elsewhere)}" in server.log.read_text()
