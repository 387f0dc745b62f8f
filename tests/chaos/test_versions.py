"""Versions that come, are broken, and are chosen, while a real server answers a load that checks every answer."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import httpx2
import numpy as np
import pytest

from benchmarks.kinds import Kinds
from service import artifact
from tests.loads import TOKEN, admin, checked_load
from tests.servers import Server, run_server

BODY = {"history": {"ids": [1, 2], "tags": [3]}, "candidates": {"ids": [4, 5], "tags": [6, 7]}}

Damage: TypeAlias = Callable[[Path], object]


def until_served(server: Server, version: str) -> None:
    """Wait until a version serves."""
    server.poll("/health", lambda response: response.json()["version"] == version)


def test_fifty_switches_fail_nobody(kinds: Kinds, tmp_path: Path) -> None:
    """While versions come and are chosen, fifty switches in all, every answer is right for the version it names."""
    model_dir = tmp_path / "din"
    kinds.publish(model_dir, 1)
    with run_server(tmp_path / "log", model_dir, poll_s=0.2, admin_token=TOKEN) as server:
        with checked_load(kinds, server) as found:
            for version in (2, 3, 4):
                kinds.publish(model_dir, version)
                until_served(server, str(version))
            for i in range(47):
                response = admin(server, "POST", f"versions/{2 + i % 3}/activate")
                assert response.status_code == 200, response.text
                time.sleep(0.1)  # some requests for each
        text = httpx2.get(server.url + "/metrics").text
    assert found["errors"] == {}
    assert found["answered"] == found["sent"] > 1000
    assert set(found["versions"]) == {"1", "2", "3", "4"}
    assert 'din_version_loads_total{result="loaded"} 51.0' in text


def reseal(folder: Path, **update: object) -> None:
    """Make the checksums agree with the files, and change the manifest."""
    artifact.write_manifest(folder, artifact.read_manifest(folder).model_copy(update=update))


def truncate(folder: Path) -> None:
    """As a copy that was cut off leaves it."""
    file = next((folder / "variables").glob("*.data-*"))
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def flip(folder: Path) -> None:
    """One bit."""
    file = next((folder / "variables").glob("*.data-*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def no_saved_model(folder: Path) -> None:
    """Something else, sealed as if it were one."""
    (folder / "saved_model.pb").write_bytes(b"\x00no protocol buffer" * 100)
    reseal(folder)


def other_signature(folder: Path) -> None:
    """A manifest that promises a signature that is not there."""
    signatures = artifact.read_manifest(folder).signatures
    reseal(folder, signatures=signatures.model_copy(update={"row": artifact.RowSignature(name="other")}))


def other_golden(folder: Path) -> None:
    """Golden answers of another network."""
    golden = artifact.read_golden(folder)
    requests = [
        each.model_copy(update={"probabilities": [1 - value for value in each.probabilities]})
        for each in golden.requests
    ]
    artifact.write_golden(folder, artifact.Golden(requests=requests))
    reseal(folder)


def nan_weights(folder: Path) -> None:
    """A training that has diverged: no golden answers, and NaN in the weights of the head."""
    import tensorflow as tf

    prefix = str(folder / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    names = sorted(reader.get_variable_to_shape_map())
    key = artifact.read_manifest(folder).variables["head.0.kernel"]  # type: ignore[index]
    tensors = [reader.get_tensor(name) for name in names]
    broken = [np.full_like(each, np.nan) if name.startswith(key) else each for name, each in zip(names, tensors)]  # noqa: B905
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=broken)
    (folder / artifact.GOLDEN).unlink()
    reseal(folder)


def empty(folder: Path) -> None:
    """As a copy that was never begun leaves it."""
    shutil.rmtree(folder)
    folder.mkdir()


def strings(folder: Path) -> None:
    """A model that takes text."""
    features = artifact.read_manifest(folder).features
    kind = features.id.model_copy(update={"dtype": "string"})
    reseal(folder, features=features.model_copy(update={"id": kind}))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing-file": (
        lambda folder: next((folder / "variables").glob("*.index")).unlink(),
        "missing, the manifest",
    ),
    "truncated": (truncate, "sha256 is not the manifest's"),
    "one-bit": (flip, "sha256 is not the manifest's"),
    "no-manifest": (lambda folder: (folder / artifact.MANIFEST).unlink(), "manifest.json: cannot be read"),
    "broken-manifest": (
        lambda folder: (folder / artifact.MANIFEST).write_text("{"),
        "json: file: Invalid JSON",
    ),
    "empty": (empty, "manifest.json: cannot be read"),
    "no-saved-model": (no_saved_model, "not a SavedModel that loads"),
    "signature": (other_signature, "no signature other"),
    "golden": (other_golden, "golden request"),
    "nan": (nan_weights, "holds NaN"),
    "feature-types": (strings, "takes ids as string, the running version as int64"),
    "other-version": (lambda folder: reseal(folder, version="77"), "says version 77"),
}


def test_no_bad_version_hurts(kinds: Kinds, tmp_path: Path) -> None:
    """Of a dozen kinds of bad versions each is refused with its reason, counted once, and the old one answers all."""
    model_dir = tmp_path / "din"
    kinds.publish(model_dir, 1)
    with run_server(tmp_path / "log", model_dir, poll_s=0.2, admin_token=TOKEN) as server:
        for version, (damage, _) in enumerate(DAMAGES.values(), 2):
            damage(kinds.publish(tmp_path / "aside", version))
        with checked_load(kinds, server) as found:
            for version in range(2, 2 + len(DAMAGES)):
                (tmp_path / "aside" / str(version)).rename(model_dir / str(version))
            count = f'din_version_loads_total{{result="refused"}} {len(DAMAGES)}.0'
            for _ in range(2):  # some of them take seconds each, to be found out
                with suppress(pytest.fail.Exception):
                    server.poll("/metrics", lambda response: count in response.text)
            states = {each["version"]: each for each in admin(server, "GET", "versions").json()["versions"]}
            time.sleep(1)  # some looks more
            health = httpx2.get(server.url + "/health")
            assert count in httpx2.get(server.url + "/metrics").text
    assert (found["errors"], found["versions"]) == ({}, {"1": found["sent"]})
    assert (health.status_code, health.json()["status"], health.json()["version"]) == (200, "degraded", "1")
    for version, (name, (_, reason)) in enumerate(DAMAGES.items(), 2):
        assert reason in states[str(version)]["refused"], name
        assert reason in health.json()["checks"]["versions"]["detail"], name
    assert "Traceback" not in server.log.read_text()


def test_pin_survives_a_kill(kinds: Kinds, tmp_path: Path) -> None:
    """A server that is killed and starts again serves the version that was pinned, not the newest."""
    model_dir = tmp_path / "din"
    for version in (1, 2):
        kinds.publish(model_dir, version)
    with run_server(tmp_path / "log", model_dir, admin_token=TOKEN) as server:
        assert server.score(BODY).json()["model"]["version"] == "2"
        assert admin(server, "POST", "versions/1/activate").status_code == 200
        server.kill()
    with run_server(tmp_path / "log", model_dir, admin_token=TOKEN, port=server.port) as again:
        assert again.score(BODY).json()["model"]["version"] == "1"
        assert admin(again, "POST", "versions/follow-latest").json()["pinned"] is None
        assert again.score(BODY).json()["model"]["version"] == "2"


def test_workers_follow_each_other(kinds: Kinds, tmp_path: Path) -> None:
    """What one worker is told all of them do, soon, and a new version reaches all."""
    model_dir = tmp_path / "din"
    for version in (1, 2):
        kinds.publish(model_dir, version)

    def agree(server: Server, version: str) -> bool:
        """Whether twenty connections in a row meet nothing but this version."""
        return {server.score(BODY).json()["model"]["version"] for _ in range(20)} == {version}

    with run_server(tmp_path / "log", model_dir, workers=2, poll_s=0.5, admin_token=TOKEN) as server:
        server.poll("/health", lambda response: "2 of 2 ready" in response.text)
        assert admin(server, "POST", "versions/1/activate").status_code == 200
        server.poll("/health", lambda _: agree(server, "1"))
        assert admin(server, "POST", "versions/follow-latest").status_code == 200
        server.poll("/health", lambda _: agree(server, "2"))
        kinds.publish(model_dir, 3)
        server.poll("/health", lambda _: agree(server, "3"))
