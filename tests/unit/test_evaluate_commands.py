"""`dinserve evaluate` and `dinserve compare`, over versions whose answers are made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from service import artifact
from service.artifact import Training
from service.cli import main
from service.engine import tensorflow
from service.training import Samples, scored
from service.training.data import load
from tests.fakes import FakeEngine, write_version


def run(*arguments: object) -> Result:
    """Run the command line."""
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of impressions of four users."""
    return write_data(tmp_path / "log.csv")


@pytest.fixture(autouse=True)
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 answers anything, every other one what is true."""

    def score(version: Path, manifest: artifact.Manifest, samples: Samples) -> Any:
        score = np.random.default_rng(1).uniform(0.3, 0.7, len(samples))
        return (score if version.name == "1" else 0.1 + 0.8 * samples.label).astype(np.float32)

    monkeypatch.setattr(scored, "score", score)


def write_data(path: Path, users: int = 4, items: str = "", label: str | None = None) -> Path:
    """Write impressions of some users."""
    rows = [
        f"{user},{items}{item % 7},{item % 3},{item},{label or item * (user + 1) % 3 % 2}"
        for user in range(users)
        for item in range(30)
    ]
    path.write_text("\n".join(["user,item,tag,timestamp,label", *rows]) + "\n")
    return path


def test_evaluate_writes_and_tells(tmp_path: Path, data: Path) -> None:
    """The table has a line for each scorer, the last line is for an allow-list, and the manifest has the headline."""
    version = write_version(tmp_path / "din", 2)
    done = run("evaluate", "--model", version, "--data", data, "--draws", 100)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "interactions log.csv: 24 test rows of 4 users"
    assert lines[1].split() == ["AUC", "GAUC", "logloss", "ECE", "NDCG@10"]
    assert lines[2].split()[:6] == ["version", "2", "1.0000", "(1.0000", "to", "1.0000)"]
    assert [line[:19].strip() for line in lines[3:6]] == ["popularity", "item mean", "logistic regression"]
    assert lines[6] == f"report in {version / 'report'}"
    assert lines[7] == f"{artifact.manifest_sum(version)}  {version / artifact.MANIFEST}"
    found = artifact.read_manifest(version).evaluation
    assert found is not None
    assert (found.figures["auc"].value, found.rows, found.seed) == (1, 24, 1)


@pytest.mark.parametrize(
    ("held_out", "warned"),
    [
        pytest.param("same", False, id="the-same-rows"),
        pytest.param("other", True, id="other-rows"),
        pytest.param(None, False, id="an-older-version"),
    ],
)
def test_rows_that_may_have_been_learnt(tmp_path: Path, data: Path, held_out: str | None, *, warned: bool) -> None:
    """A version that was trained with other rows held out is judged with a warning; one that does not say, without."""
    version, rows = write_version(tmp_path / "din", 2), load(data, 1).test
    said = rows.digest() if held_out == "same" else held_out
    training = Training(data="", rows=1, test_rows=1, held_out=said, epochs=1, batch_rows=1, learning_rate=1, seed=1)
    manifest = artifact.read_manifest(version)
    artifact.write_manifest(version, manifest.model_copy(update={"training": training}))
    done = run("evaluate", "--model", version, "--data", data, "--draws", 100)
    assert done.exit_code == 0, done.output
    assert ("Warning: version 2 was trained with other test rows held out" in done.stderr) == warned


def test_compare_tells_the_better(tmp_path: Path, data: Path) -> None:
    """Each metric has both values, the change and which is better; no version is touched."""
    first, second = write_version(tmp_path / "din", 1), write_version(tmp_path / "din", 2)
    sums = [artifact.manifest_sum(each) for each in (first, second)]
    done = run("compare", first, second, "--data", data, "--draws", 100, "--seed", 5)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "interactions log.csv: 24 test rows"
    assert [line.split()[0] for line in lines[2:]] == ["AUC", "GAUC", "logloss", "ECE", "NDCG@10"]
    assert lines[2].endswith("second")
    assert [artifact.manifest_sum(each) for each in (first, second)] == sums
    assert not (first / "report").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param([], ("interactions log.csv", 60, 10), id="every-user's-last"),
        pytest.param(["--sampling", "ratings"], ("interactions log.csv, split by user", 60, 2), id="some-users"),
    ],
)
def test_sampling_reaches_the_data(tmp_path: Path, options: list[object], expected: tuple[str, int, int]) -> None:
    """How events become samples is chosen as for training."""
    data, version = write_data(tmp_path / "log.csv", users=10), write_version(tmp_path / "din", 2)
    done = run("evaluate", "--model", version, "--data", data, "--draws", 100, "--seed", 3, *options)
    found = artifact.read_manifest(version).evaluation
    assert found is not None, done.output
    assert (found.data, found.rows, found.users) == expected
    assert found.seed == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"items": "film-"}, "version 2 takes ids as int64, those of the data are string", id="dtype"),
        pytest.param({"users": 1}, "are of one user", id="one-user"),
        pytest.param({"label": "1"}, "both 0 and 1 are needed", id="one-class"),
        pytest.param({"label": "x"}, "line 2, column label: 'x' is not", id="bad-label"),
    ],
)
def test_evaluate_refuses_bad_data(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Data that nothing can be told from is refused in a sentence, and the version stays as it is."""
    version, data = write_version(tmp_path / "din", 2), write_data(tmp_path / "log.csv", **options)
    before = artifact.manifest_sum(version)
    done = run("evaluate", "--model", version, "--data", data)
    assert (done.exit_code, message in done.stderr) == (1, True), done.output
    assert artifact.manifest_sum(version) == before
    assert not (version / "report").exists()


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_what_is_no_version_is_refused(tmp_path: Path, data: Path, command: str) -> None:
    """A folder without a manifest, or with an altered file, is refused by its path before the data is read."""
    for damaged, message in ((tmp_path / "none", "manifest.json: cannot be read"), (write_version(tmp_path), "sha256")):
        if damaged.exists():
            (damaged / "saved_model.pb").write_bytes(b"other")
        options = ["--model", damaged] if command == "evaluate" else [damaged, damaged]
        done = run(command, *options, "--data", data)
        assert (done.exit_code, message in done.stderr) == (1, True), done.output
        assert str(damaged) in done.stderr


def test_verify_checks_the_report(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An altered report fails `dinserve verify`."""
    monkeypatch.setattr(tensorflow, "load", lambda *_: FakeEngine())
    monkeypatch.setattr(tensorflow, "SavedModel", lambda _: None)
    monkeypatch.setattr(tensorflow, "RowEngine", lambda *_: FakeEngine())
    version = write_version(tmp_path / "din", 2)
    assert run("evaluate", "--model", version, "--data", data, "--draws", 100).exit_code == 0
    assert run("verify", version).exit_code == 0
    (version / "report" / "report.md").write_text("better")
    done = run("verify", version)
    assert (done.exit_code, "report.md: sha256 is not the manifest's" in done.stderr) == (1, True)
