"""The project's own files: Makefile, containers and folders agree with the package and with each other."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import service
from service.config import Settings
from tests.image import ROOT, dockerfile, image_environment, read_yaml

VERBS = {"help", "serve", "test", "lint", "train", "bench", "clean"}


def test_make_alone_lists_every_verb() -> None:
    """Bare make prints each verb with what it does."""
    command = [shutil.which("make") or "make", "--no-print-directory"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in output.stdout.splitlines()} == VERBS


def test_makefile_supports_the_same_pythons_as_the_package() -> None:
    """The Makefile accepts an interpreter exactly when pip would."""
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = re.findall(r"\((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    assert requires == f">={low[0]}.{low[1]},<{high[0]}.{high[1]}"


def test_image_runs_the_command_directly() -> None:
    """Entry point, command and health check are in exec form, so that signals reach the server."""
    instructions = dockerfile()
    health = instructions["HEALTHCHECK"][0].partition(" CMD ")[2]
    assert json.loads(instructions["ENTRYPOINT"][0]) == ["dinserve"]
    assert json.loads(instructions["CMD"][0]) == ["serve"]
    assert json.loads(health) == ["dinserve", "health"]


def test_image_user_is_a_number_other_than_root() -> None:
    """The image runs as a numeric user, which an orchestrator can tell from root."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dockerfile()["USER"][-1])


def test_image_environment_holds_only_settings() -> None:
    """Every DIN_ variable of the image is a setting, and its port is the one exposed."""
    environment = image_environment()
    names = {name.removeprefix("DIN_").lower() for name in environment if name.startswith("DIN_")}
    assert names <= set(Settings.model_fields)
    assert dockerfile()["EXPOSE"] == [environment["DIN_PORT"]]


def test_ignored_files_are_not_copied() -> None:
    """Whatever the Dockerfile copies from the checkout passes .dockerignore, and the environment does not."""
    passing = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [line.split()[:-1] for line in dockerfile()["COPY"] if not line.startswith("--from")]
    assert {name for names in sources for name in names} == passing


def test_image_owns_what_it_writes() -> None:
    """The folder of the rollout file is made for the image's user, whose a fresh volume over it becomes."""
    folder = Path(image_environment()["DIN_ROLLOUT_FILE"]).parent
    owner, group = dockerfile()["USER"][-1].split(":")
    assert f"install --directory --owner={owner} --group={group} --mode=0750 {folder}" in dockerfile()["RUN"]


def test_compose_agrees_with_the_image() -> None:
    """The compose file publishes the image's port, and mounts models and decisions where the image looks for them."""
    server = read_yaml("docker-compose.yml")["services"]["dinserve"]
    environment = image_environment()
    assert [port.split(":")[-1] for port in server["ports"]] == [environment["DIN_PORT"]]
    models = f"./{Settings.model_fields['model_dir'].default}:{environment['DIN_MODEL_DIR']}:ro"
    assert server["volumes"] == [models, f"state:{Path(environment['DIN_ROLLOUT_FILE']).parent}"]


def test_compose_waits_longer_than_the_server_drains() -> None:
    """The kill comes after the drain delay, and the grace time of connections and of executors."""
    server = read_yaml("docker-compose.yml")["services"]["dinserve"]
    longest_s = Settings.model_fields["drain_delay_s"].default + 2 * Settings.model_fields["grace_s"].default
    assert int(server["stop_grace_period"].removesuffix("s")) > longest_s


def test_prometheus_scrapes_the_compose_service() -> None:
    """Prometheus is given its configuration and rules, and targets the service by its compose name and port."""
    services = read_yaml("docker-compose.yml")["services"]
    source, target, mode = services["prometheus"]["volumes"][0].split(":")
    job = read_yaml(f"{source}/prometheus.yml")["scrape_configs"][0]
    assert (target, mode) == ("/etc/prometheus", "ro")
    assert "--config.file=/etc/prometheus/prometheus.yml" in services["prometheus"]["command"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": [f"dinserve:{image_environment()['DIN_PORT']}"]}]
    assert "dinserve" in services


def test_compose_services_are_confined() -> None:
    """Each container has a read-only root and no rights, listens on this machine only, and its image is pinned."""
    for name, each in read_yaml("docker-compose.yml")["services"].items():
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in each["ports"])
        assert "build" in each or re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", each["image"]), name


def test_compose_keeps_metrics_as_long_as_the_longest_rule_looks_back() -> None:
    """Prometheus keeps more days than the widest window of its rules."""
    command = " ".join(read_yaml("docker-compose.yml")["services"]["prometheus"]["command"])
    (kept,) = re.findall(r"retention\.time=(\d+)d", command)
    windows = re.findall(r"\[(\d+)d\]", (ROOT / "deploy/prometheus/rules/recording.yml").read_text())
    assert int(kept) > max(map(int, windows))


def test_changelog_knows_the_version() -> None:
    """The changelog has an Unreleased section or names the package's version."""
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in {"Unreleased", service.__version__}


def test_test_carries_the_marker_of_its_folder(request: pytest.FixtureRequest) -> None:
    """A test under tests/unit is marked unit without saying so."""
    assert request.node.get_closest_marker("unit")


def test_test_in_unknown_folder_is_an_error(tmp_path: Path) -> None:
    """A folder that is no marker stops the test run, naming file and folder."""
    (tmp_path / "odd").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "odd" / "test_a.py").write_text("def test_a(): pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "test_a.py: odd is none of api, browser, chaos, e2e, unit" in done.stdout + done.stderr
