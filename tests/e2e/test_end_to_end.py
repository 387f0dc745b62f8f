import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from click.testing import Result

from service import artifact
from service.training import Samples, data
from service.training.fit import predict
from service.training.parts import hash_samples

RunCommand: TypeAlias = Callable[..., Result]

COMMITTED = Path(__file__).parents[2] / "model_artifacts" / "din"
BODY = {"history": {"ids": [1, 4], "tags": [5, 5]}, "candidates": {"ids": [7, 8, 9], "tags": [5, 8, 11]}}


def as_body(samples: Samples, n: int) -> dict[str, Any]:
    """Sample `n` as a request of one candidate."""
    return {
        "history": {
            "ids": samples.event_id[samples.id_start[n] : samples.id_stop[n]].tolist(),
            "tags": plain(samples.event_tag[samples.tag_start[n] : samples.tag_stop[n]]),
        },
        "candidates": {"ids": samples.target_id[n : n + 1].tolist(), "tags": plain(samples.target_tag[n : n + 1])},
    }


def plain(values: Any) -> list[Any]:
    """Values as JSON has them."""
    return [each.decode() if isinstance(each, bytes) else each for each in values.tolist()]


@pytest.fixture
def model_dir(exported: Any, tmp_path: Path) -> Path:
    """A copy of the trained model folder, to be damaged."""
    return Path(shutil.copytree(exported.model_dir, tmp_path / "din"))


def test_training_reports_and_exports(exported: Any) -> None:
    """`dinserve train` prints the rows, a line of figures for each scorer, and where the version went."""
    lines = exported.output.splitlines()
    assert "MovieLens ml-made-here" in lines[0]
    table = {line.split()[0]: [float(each) for each in line.split()[1:]] for line in lines[-4:-1]}
    stored = artifact.read_manifest(exported.model_dir / "1").metrics
    assert table.keys() == stored.keys() == {"din", "pooling", "popularity"}
    for name, figures in table.items():
        assert figures == pytest.approx([stored[name].auc, stored[name].gauc, stored[name].logloss], abs=1e-4)
    assert lines[-1] == f"exported {exported.model_dir / '1'}"


def test_server_answers_as_the_trainer(exported: Any, start_server: Any) -> None:
    """Test rows posted to a real server get the trainer's own predictions, and SIGTERM ends it with status 0."""
    test = data.load(exported.data, seed=3, max_history=8).test
    expected = predict(exported.din, hash_samples(test, exported.din.features))
    with start_server(exported.model_dir) as server:
        chosen = np.linspace(0, len(test) - 1, 25).astype(int)
        answers = [server.score(as_body(test, n)).json() for n in chosen]
    found = [answer["probabilities"][0] for answer in answers]
    np.testing.assert_allclose(found, expected[chosen], atol=1e-5)
    assert answers[0]["model"] == {"name": "din", "version": "1"}


def test_server_becomes_ready(exported: Any, start_server: Any) -> None:
    """A server that still loads says so with 503 and refuses to score; once warm it is ready and scores."""
    body = golden_body(exported.model_dir)
    with start_server(exported.model_dir, ready=False) as server:
        first = server.poll("/health", lambda _: True)
        refused = server.score(body)
        assert (first.status_code, first.json()["status"]) == (503, "loading")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        ready = server.poll("/health", lambda response: response.status_code == 200).json()
        assert (ready["status"], ready["version"], ready["engine"]) == ("ok", "1", "native")
        assert server.score(body).status_code == 200


def golden_body(model_dir: Path) -> dict[str, Any]:
    """A request that the version came with."""
    request = artifact.read_golden(model_dir / "1").requests[0].model_dump(mode="json")
    return {name: request[name] for name in ("history", "candidates")}


def test_corrupt_model_is_not_served(model_dir: Path, start_server: Any) -> None:
    """A version with a damaged file is reported by name; the process lives, refuses to score, and stops cleanly."""
    damaged = model_dir / "1" / "saved_model.pb"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with start_server(model_dir, ready=False) as server:
        health = server.poll("/health", lambda response: response.json()["status"] != "loading")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert health.json()["checks"]["model"]["detail"] == f"{damaged}: sha256 is not the manifest's"
        assert server.poll("/health/live", lambda _: True).status_code == 200
        assert server.score(BODY).json()["error"]["code"] == "not_ready"


def test_trained_version_verifies(exported: Any, dinserve: RunCommand) -> None:
    """`dinserve verify` accepts what `dinserve train` wrote, by version and by model folder."""
    for folder in (exported.model_dir, exported.model_dir / "1"):
        done = dinserve("verify", folder)
        assert (done.exit_code, done.output.split(":")[0]) == (0, str(exported.model_dir / "1"))
        assert "ok" in done.output


@pytest.mark.skipif(not COMMITTED.exists(), reason=f"{COMMITTED} is missing")
def test_committed_version_verifies(dinserve: RunCommand) -> None:
    """The version that comes with the project passes its own checks."""
    done = dinserve("verify", COMMITTED)
    assert done.exit_code == 0, done.output


def wrong_golden(version: Path) -> None:
    """Shift every golden answer, checksums repaired."""
    golden = artifact.read_golden(version)
    shifted = [
        each.model_copy(update={"probabilities": [one / 2 for one in each.probabilities]}) for each in golden.requests
    ]
    artifact.write_golden(version, artifact.Golden(requests=shifted))
    artifact.write_manifest(version, artifact.read_manifest(version))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda version: (version / "golden.json").unlink(), "missing, the manifest lists it", id="file"),
        pytest.param(wrong_golden, "golden request 'typical': off by", id="answers"),
        pytest.param(lambda version: version.rename(version.with_name("2")), "the folder is 2", id="number"),
        pytest.param(shutil.rmtree, "neither a version nor a folder of versions", id="nothing"),
    ],
)
def test_damaged_version_does_not_verify(
    model_dir: Path, dinserve: RunCommand, damage: Callable[[Path], object], reason: str
) -> None:
    """`dinserve verify` exits with 1 and the reason, in one line."""
    damage(model_dir / "1")
    done = dinserve("verify", model_dir)
    assert done.exit_code == 1
    assert reason in done.output
    assert done.output.count("\n") == 1


def test_version_without_golden_requests_verifies(model_dir: Path, dinserve: RunCommand) -> None:
    """A version made elsewhere may come without golden requests; verify says that it does."""
    (model_dir / "1" / "golden.json").unlink()
    artifact.write_manifest(model_dir / "1", artifact.read_manifest(model_dir / "1"))
    done = dinserve("verify", model_dir)
    assert (done.exit_code, "without golden requests" in done.output) == (0, True)


def test_training_data_that_is_not_there(dinserve: RunCommand, tmp_path: Path) -> None:
    """`dinserve train` on a path that does not exist exits with 1, names it, and writes no version."""
    done = dinserve("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "din")
    assert done.exit_code == 1
    assert f"{tmp_path / 'nowhere'}: no such file or folder" in done.output
    assert not (tmp_path / "din").exists()
