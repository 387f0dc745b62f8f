"""The command line without TensorFlow, uvicorn or a socket: each is replaced where the command reaches for it."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from click.testing import CliRunner, Result

import service
from service import artifact, cli
from service.batch import BlockBatch, Floats
from service.catalog import Item
from service.catalog_file import read_catalog
from service.cli import main
from service.config import Settings
from service.training.recipe import Recipe
from tests.fakes import FakeEngine, write_version


class WrongRows(FakeEngine):
    """A row-per-candidate engine that disagrees with the golden answers."""

    def run(self, batch: BlockBatch) -> Floats:
        """Answer the complement."""
        return 1 - super().run(batch)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DIN_"):
            monkeypatch.delenv(name)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """Put fake engines in TensorFlow's place: what `load` and `RowEngine` give, in turn."""
    engines: list[FakeEngine] = [FakeEngine(), FakeEngine()]
    left = iter(engines * 2)
    module = SimpleNamespace(
        load=lambda *_: next(left), RowEngine=lambda *_: next(left), SavedModel=lambda folder: folder
    )
    monkeypatch.setattr(service.engine, "tensorflow", module, raising=False)
    return engines


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, engines: list[FakeEngine]) -> list[uvicorn.Config]:
    """Let uvicorn's server note its configuration instead of running."""
    served: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: served.append(server.config))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return served


def run(*arguments: object, **environment: str) -> Result:
    """Run `dinserve` with arguments and environment variables."""
    return CliRunner().invoke(main, [str(each) for each in arguments], env=environment)


def test_version_is_the_packages() -> None:
    """`--version` prints name and version."""
    assert run("--version").output == f"dinserve, version {service.__version__}\n"


def test_serve_has_a_flag_for_every_setting() -> None:
    """The help of `serve` names each setting's flag and variable."""
    output = run("serve", "--help").output
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in output
        assert f"DIN_{name.upper()}" in output.replace("\n", "").replace(" ", "")


def test_serve_prints_settings_and_starts(served: list[uvicorn.Config], tmp_path: Path) -> None:
    """The server is started with what flags and environment say, after every setting is printed."""
    done = run("serve", "--port", 9000, "--access-log", "0.1", "--model-dir", tmp_path, DIN_PORT="1")
    assert done.exit_code == 0
    assert done.stderr.startswith(f"dinserve {service.__version__}\nmodel_dir = {tmp_path}\n")
    config = served[0]
    assert (config.port, config.access_log, config.proxy_headers) == (9000, False, True)
    application: Any = config.app
    assert application().state.service.settings.model_dir == tmp_path


def test_flag_overrides_the_environment(served: list[uvicorn.Config]) -> None:
    """A flag can switch off what the environment switches on."""
    assert run("serve", "--access-log", "0", DIN_ACCESS_LOG="1").exit_code == 0
    assert served[0].proxy_headers is False


def test_traces_need_opentelemetry(served: list[uvicorn.Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is to trace does not start without OpenTelemetry, and says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "service.tracing", raising=False)
    monkeypatch.delattr(service, "tracing", raising=False)
    done = run("serve", DIN_TRACE_RATIO="0.1")
    assert done.exit_code == 2
    assert "Error: DIN_TRACE_RATIO = 0.1: traces need OpenTelemetry: pip install 'dinserve[otel]'" in done.stderr
    assert served == []


def test_wrong_variable_of_opentelemetry_stops_the_start(served: list[uvicorn.Config]) -> None:
    """What OpenTelemetry does not take of its own variables is said before anything is served."""
    done = run("serve", DIN_TRACE_RATIO="0.1", OTEL_BSP_SCHEDULE_DELAY="-1")
    assert done.exit_code == 2
    assert "Error: an OTEL_ variable is wrong: schedule_delay_millis must be positive." in done.stderr
    assert served == []


def test_settings_are_not_printed_among_json(served: list[uvicorn.Config]) -> None:
    """With a log in JSON no other text goes before it."""
    done = run("serve", DIN_LOG_FORMAT="json")
    assert (done.exit_code, done.stderr) == (0, "")


def test_server_without_traces_does_not_import_opentelemetry() -> None:
    """Whoever does not ask for traces needs none of it installed."""
    code = (
        "import sys, service.cli, service.app; assert not {'opentelemetry.sdk', 'service.tracing'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        pytest.param(["--port", "http"], {}, "Error: DIN_PORT = 'http': ", id="flag"),
        pytest.param([], {"DIN_PORT": "http"}, "Error: DIN_PORT = 'http': ", id="variable"),
        pytest.param([], {"DIN_PROT": "1"}, "Error: DIN_PROT: no such setting", id="unknown-variable"),
        pytest.param(["--max-queue-rows", "1"], {}, "Error: DIN_MAX_QUEUE_ROWS = 1: below", id="contradiction"),
        pytest.param(["--prot", "1"], {}, "Error: No such option '--prot'", id="unknown-flag"),
    ],
)
def test_serve_refuses_wrong_settings(
    served: list[uvicorn.Config], arguments: list[str], environment: dict[str, str], message: str
) -> None:
    """A wrong setting stops start-up by name, with exit status 2, and nothing is served."""
    done = run("serve", *arguments, **environment)
    assert done.exit_code == 2
    assert message in done.stderr
    assert served == []


def test_verify_a_version(engines: list[FakeEngine], tmp_path: Path) -> None:
    """A sound version is proved through both ways in, which are freed, and said to be ok; its sum can be allowed."""
    version = write_version(tmp_path)
    done = run("verify", version)
    assert done.exit_code == 0
    said, allowing = done.stdout.splitlines()
    assert said == f"{version}: ok, golden answers within 1e-05 through every signature"
    assert allowing == f"{artifact.manifest_sum(version)}  {version / 'manifest.json'}"
    assert [engine.closed for engine in engines] == [True, True]


def test_verify_a_model_folder(engines: list[FakeEngine], tmp_path: Path) -> None:
    """Every version of a model folder is checked, lowest first."""
    for number in (10, 9):
        write_version(tmp_path, number)
    done = run("verify", tmp_path)
    said = done.stdout.splitlines()[::2]
    assert [line.partition(": ")[0] for line in said] == [str(tmp_path / "9"), str(tmp_path / "10")]


def test_verify_says_what_it_could_not_compare(engines: list[FakeEngine], tmp_path: Path) -> None:
    """A version without golden requests is ok, with that said."""
    version = write_version(tmp_path)
    (version / artifact.GOLDEN).unlink()
    artifact.write_manifest(version, artifact.read_manifest(version))
    assert run("verify", version).stdout.startswith(f"{version}: ok, without golden requests\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda version: (version / "saved_model.pb").unlink(), "saved_model.pb: missing", id="missing"),
        pytest.param(
            lambda version: (version / "saved_model.pb").write_text("?"), "saved_model.pb: sha256", id="altered"
        ),
        pytest.param(lambda version: (version / "manifest.json").write_text("{"), "manifest.json: file", id="manifest"),
        pytest.param(lambda version: (version / "manifest.json").unlink(), "neither a version", id="no-manifest"),
    ],
)
def test_verify_fails_on_a_bad_version(
    engines: list[FakeEngine], tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    """A bad version gives exit status 1 and the reason."""
    version = write_version(tmp_path)
    damage(version)
    done = run("verify", version)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {version}")
    assert message in done.stderr


def test_verify_fails_on_an_empty_folder(tmp_path: Path) -> None:
    """Where there is no version there is nothing that could be ok."""
    done = run("verify", tmp_path / "missing")
    assert (done.exit_code, done.stderr) == (
        1,
        f"Error: {tmp_path / 'missing'}: neither a version nor a folder of versions\n",
    )


def test_verify_proves_the_row_signature(
    engines: list[FakeEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version whose row-per-candidate signature answers otherwise is bad, though it would serve well."""
    monkeypatch.setattr(service.engine.tensorflow, "RowEngine", lambda *_: WrongRows())
    done = run("verify", write_version(tmp_path))
    assert done.exit_code == 1
    assert "golden request 'history of 1': off by" in done.stderr


def test_train_reports_and_exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Training says what it read, how each model did and where the version went; its options reach the trainer."""
    quality = artifact.Quality(auc=0.75, gauc=0.5, logloss=0.25)
    recipes: list[Any] = []

    def fit(split: Any, recipe: Any, report: Any, keeping: Any) -> Any:
        recipes.append(recipe)
        return SimpleNamespace(din=None, training=None, metrics={"din": quality}, scores=None)

    parts: dict[str, Any] = {
        "Keeping": lambda *_: None,
        "known_items": lambda known: known,
        "met_ids": len,
        "train": fit,
    }
    monkeypatch.setitem(sys.modules, "service.training.train", cast("ModuleType", SimpleNamespace(**parts)))
    parts = {"Folder": lambda *_: SimpleNamespace(remove=lambda: None)}
    monkeypatch.setitem(sys.modules, "service.training.checkpoints", cast("ModuleType", SimpleNamespace(**parts)))
    parts = {"Origin": lambda *_: None, "export": lambda _, out, *__: out / "1"}
    monkeypatch.setitem(sys.modules, "service.training.export", cast("ModuleType", SimpleNamespace(**parts)))
    rows = [f"{user},{10 * user + item},{item % 3},{item}" for user in range(3) for item in range(10)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,tag,timestamp", *rows]))
    options = [
        "--recipe",
        "seed",
        "--seed",
        5,
        "--epochs",
        2,
        "--no-softmax",
        "--attention-hidden",
        "7",
        "--head-activation",
        "dice",
    ]
    done = run("train", "--data", tmp_path / "log.csv", "--out", tmp_path, *options)
    assert done.stdout.splitlines() == [
        "interactions log.csv: 42 train, 6 validation, 12 test rows",
        "test rows        AUC    GAUC  logloss",
        "din           0.7500  0.5000   0.2500",
        f"exported {tmp_path / '1'}",
    ]
    assert (recipes[0].seed, recipes[0].epochs) == (5, 2)
    assert recipes[0].architecture == artifact.Architecture(
        softmax=False, attention_hidden=(7,), head_activation="dice"
    )


@pytest.mark.parametrize("sizes", ["", "0", "8,", "8 4", "-1", "99999"])
def test_train_refuses_odd_sizes(tmp_path: Path, sizes: str) -> None:
    """What is no list of layer sizes is refused with exit status 2, saying what one looks like."""
    done = run("train", "--data", tmp_path, "--out", tmp_path, "--head-hidden", sizes)
    assert done.exit_code == 2
    assert "is no list of layer sizes such as 32,16" in done.stderr


def test_train_has_a_flag_for_every_choice() -> None:
    """Every value of a recipe has a flag, and a flag that is not given leaves it to the recipe."""
    context = main.commands["train"].make_context("train", ["--data", ".", "--out", "."])
    names = Recipe.model_fields.keys() - {"architecture"} | artifact.Architecture.model_fields.keys()
    assert {name: context.params[name] for name in names} == dict.fromkeys(names)


def test_train_refuses_an_unknown_key(tmp_path: Path) -> None:
    """A recipe file with a key that is none is refused with exit status 2, naming it, before data are read."""
    (tmp_path / "my.toml").write_text("epochz = 3")
    done = run("train", "--data", tmp_path / "missing", "--out", tmp_path / "din", "--recipe", tmp_path / "my.toml")
    assert (done.exit_code, done.stderr) == (2, f"Error: recipe {tmp_path / 'my.toml'}: epochz: is unknown\n")


def test_train_fails_on_bad_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that cannot be used is refused with exit status 1, naming the path, before TensorFlow is imported."""
    monkeypatch.setitem(sys.modules, "service.training.train", cast("ModuleType", None))
    done = run("train", "--data", tmp_path / "missing", "--out", tmp_path / "din")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {tmp_path / 'missing'}")
    assert not (tmp_path / "din").exists()


@pytest.mark.parametrize("option", ["--epochs", "--batch-rows", "--learning-rate", "--dimension", "--max-history"])
def test_train_refuses_nothing_of_something(tmp_path: Path, option: str) -> None:
    """A size or rate of zero is refused by name with exit status 2."""
    done = run("train", "--data", tmp_path, "--out", tmp_path, option, 0)
    assert done.exit_code == 2
    assert option in done.stderr


@pytest.mark.parametrize("name", ["items.csv", "items.parquet"])
def test_catalog_is_written(tmp_path: Path, name: str) -> None:
    """A MovieLens folder's items become a file that the server reads, in the place of the one before."""
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n10,"A, or B",Drama|Action\n20,C,Action\n')
    (tmp_path / name).write_text("old")
    done = run("catalog", "--data", tmp_path, "--out", tmp_path / name)
    assert done.stdout == f"2 items in {tmp_path / name}\n"
    catalog = read_catalog(tmp_path / name, ("int64", "int64"))
    assert catalog.find([20, 10]) == [Item(20, 1, "C"), Item(10, 2, "A, or B")]
    assert {path.name for path in tmp_path.iterdir()} == {"movies.csv", name}


def test_catalog_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    """A folder that is no MovieLens one, a file of another kind and a place that is not there are refused by name."""
    done = run("catalog", "--data", tmp_path, "--out", tmp_path / "items.csv")
    assert (done.exit_code, "neither movies.csv nor movies.csv.gz" in done.stderr) == (1, True)
    done = run("catalog", "--data", tmp_path, "--out", tmp_path / "items.txt")
    assert (done.exit_code, "--out: is neither .csv nor .parquet" in done.stderr) == (2, True)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,A,Drama\n")
    done = run("catalog", "--data", tmp_path, "--out", tmp_path / "missing" / "items.csv")
    assert (done.exit_code, "No such file" in done.stderr) == (1, True)


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_catalog_stops_the_start(tmp_path: Path, workers: int) -> None:
    """A catalog that cannot be read ends the command with status 2 and its place, before anything listens."""
    write_version(tmp_path / "din")
    (tmp_path / "items.csv").write_text("id,tag\n1,2\nx,3\n")
    options = ["--model-dir", tmp_path / "din", "--catalog", tmp_path / "items.csv", "--port", 0, "--workers", workers]
    done = run("serve", *options)
    assert done.exit_code == 2
    assert done.stderr.endswith(
        f"Error: DIN_CATALOG = {tmp_path / 'items.csv'}: items.csv: line 3, column id: 'x' is not an integer\n"
    )


def test_garbage_collection_leaves_imports_alone() -> None:
    """Before an application is made, what is imported leaves the collector's sight: looking through it takes 0.3 s."""
    try:
        cli._make_app(Settings(), None)
        assert gc.get_freeze_count() > 100_000  # TensorFlow's import alone leaves more
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    finally:
        gc.enable()
        gc.unfreeze()
