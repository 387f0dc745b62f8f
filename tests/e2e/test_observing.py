"""Traces and logs of real servers: what a collector receives, and what stands in the log."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service import artifact
from tests.collector import PARENT, TRACE, collecting, traceparent
from tests.servers import Server, StartServer, free_port

MODEL_DIR = Path(__file__).parents[2] / "model_artifacts" / "din"
BODY = {
    "history": {"ids": [1, 3114, 4886], "tags": [3, 3]},
    "candidates": {"ids": [8961, 296, 1258, 318], "tags": [2, 6, 12, 7]},
}
PIPE_BYTES = 1 << 14  # that any pipe holds
STAGES = ["parse", "queue", "pack", "infer", "respond"]


def attributes(span: Span) -> dict[str, Any]:
    """Of a span, by name."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in span.attributes}


def lines(log: Path) -> list[dict[str, Any]]:
    """What a server logged, each line an object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_traces_reach_the_collector(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with a sampled parent comes out as its child, with a child for each stage inside it, and its batch."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        started = time.time_ns()
        with start_server(MODEL_DIR, trace_ratio=1e-9) as server:
            assert server.score(BODY, traceparent=traceparent(), **{"X-Request-Id": "one"}).status_code == 200
            bad = server.score({}, traceparent=traceparent("f" * 32), **{"X-Request-Id": "two"})
            assert bad.status_code == 422
            assert server.score(BODY, traceparent=traceparent("e" * 32, sampled=False)).status_code == 200
            assert server.score(BODY).status_code == 200
        ended = time.time_ns()
    assert collector.resources[0].items() >= {("service.name", "dinserve"), ("deployment.environment.name", "test")}
    root = next(span for span in collector.of(TRACE) if span.kind == Span.SPAN_KIND_SERVER)
    assert (root.name, root.parent_span_id.hex(), root.status.code) == ("POST /score", PARENT, Status.STATUS_CODE_UNSET)
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/score",
        "url.path": "/score",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "din.request_id": "one",
        "din.version": artifact.versions(MODEL_DIR)[-1].name,
        "din.candidates": 4,
        "din.history.ids": 3,
        "din.history.tags": 2,
    }
    children = [span for span in collector.of(TRACE) if span.parent_span_id == root.span_id]
    assert [span.name for span in children] == STAGES
    times = [time for span in children for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert [started, root.start_time_unix_nano, *times, root.end_time_unix_nano, ended] == sorted(
        [started, root.start_time_unix_nano, *times, root.end_time_unix_nano, ended]
    )
    (batch,) = [span for span in collector.spans if span.name == "batch"]
    assert [link.span_id for link in root.links] == [batch.span_id]
    assert attributes(batch) == {"din.engine": "native", "din.batch.rows": 4, "din.batch.requests": 1}
    (refused,) = collector.of("f" * 32)
    assert attributes(refused)["error.type"] == "invalid_request"
    assert collector.of("e" * 32) == []
    assert len(collector.spans) == len(STAGES) + 3


def test_members_link_to_one_batch(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two traced requests that share a batch link to the one span of it."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        settings = {"trace_ratio": 1, "max_delay_ms": 200, "executors": 1, "max_batch_rows": 8}
        with start_server(MODEL_DIR, **settings) as server, ThreadPoolExecutor(2) as pool:
            done = [pool.submit(server.score, BODY) for _ in range(2)]
            assert [each.result().status_code for each in done] == [200, 200]
    (batch,) = [span for span in collector.spans if span.name == "batch"]
    members = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert attributes(batch)["din.batch.requests"] == 2
    assert [[link.span_id for link in span.links] for span in members] == [[batch.span_id]] * 2
    assert len({span.trace_id for span in [batch, *members]}) == 3


def test_collector_that_is_down_harms_nobody(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody there to take the spans, requests are answered as fast, the log says so once, and the end is soon."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with start_server(MODEL_DIR, trace_ratio=1) as server:
        started = time.monotonic()
        for _ in range(50):
            assert server.score(BODY).status_code == 200
        answered = time.monotonic()
        time.sleep(1.5)  # in which it tries again
        assert server.stop() == 0
        stopped = time.monotonic()
    assert answered - started < 20
    assert stopped - answered < 1.5 + 10
    said = [line for line in server.log.read_text().splitlines() if "service.tracing" in line]
    assert len([line for line in said if "traces: " in line]) == 1
    assert "opentelemetry" not in server.log.read_text().replace(said[0], "")


def test_log_is_json(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of two workers' log is an object with the same first fields, those of uvicorn and each request too."""
    settings = {"log_format": "json", "access_log": 1, "workers": 2, "executors": 1, "trace_ratio": 1}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with start_server(MODEL_DIR, **settings) as server:
        server.score(BODY, traceparent=traceparent(), **{"X-Request-Id": "one"})
    found = lines(server.log)
    assert all(list(line)[:4] == ["time", "level", "logger", "message"] for line in found)
    assert {"uvicorn.error", "service.life", "service.watch", "service.cli"} <= {line["logger"] for line in found}
    (line,) = [line for line in found if line.get("request_id") == "one"]
    assert line["ms"] > 0
    assert {name: line[name] for name in line if name not in {"time", "ms"}} == {
        "level": "info",
        "logger": "service.watch",
        "message": "request",
        "request_id": "one",
        "trace_id": TRACE,
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/score",
        "status": 200,
        "code": "ok",
        "candidates": 4,
        "version": artifact.versions(MODEL_DIR)[-1].name,
    }


def test_server_works_when_nobody_reads_its_log(tmp_path: Path) -> None:
    """A full pipe behind standard error holds up nobody: requests are answered, and SIGTERM ends the server."""
    port = free_port()
    flags = ["--port", str(port), "--access-log", "1", "--rollout-file", str(tmp_path / "rollout.json")]
    command = [sys.executable, "-m", "service", "serve", "--model-dir", str(MODEL_DIR), *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        server = Server(f"http://127.0.0.1:{port}", process, tmp_path / "no.log")
        server.poll("/health", lambda response: response.status_code == 200)
        with httpx2.Client(base_url=server.url) as client:
            lived = [client.get(f"/health/live?{'x' * 100}").status_code for _ in range(1000)]
        assert lived == [200] * 1000
        assert server.score(BODY).status_code == 200
        assert server.stop() == 0
        assert process.stderr is not None
        assert len(process.stderr.read()) >= PIPE_BYTES
