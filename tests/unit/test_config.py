import os
from pathlib import Path
from typing import Any

import pytest

from service import config
from service.config import Settings, load_settings, usable_cpus
from service.errors import SettingsError


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DIN_"):
            monkeypatch.delenv(name)


def test_defaults_are_valid() -> None:
    """Without environment and flags there is a value for every setting, the executors being the CPUs we may use."""
    settings = load_settings()
    assert settings.port == 8000
    assert settings.executors == usable_cpus()


@pytest.mark.parametrize(
    ("workers", "executors"), [pytest.param(2, 4, id="shared"), pytest.param(99, 1, id="at-least-one")]
)
def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch, workers: int, executors: int) -> None:
    """Several workers have together as many executors as there are CPUs, and one each at least."""
    monkeypatch.setattr(config, "usable_cpus", lambda: 8)
    assert load_settings({"workers": workers}).executors == executors


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting is read from its variable, in either case, and converted to its type."""
    monkeypatch.setenv("DIN_MODEL_DIR", "/models/din")
    monkeypatch.setenv("din_port", "9000")
    monkeypatch.setenv("DIN_ACCESS_LOG", "0.5")
    settings = load_settings()
    assert (settings.model_dir, settings.port, settings.access_log) == (Path("/models/din"), 9000, 0.5)


def test_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag overrides the variable of the same setting, and leaves the others."""
    monkeypatch.setenv("DIN_PORT", "9000")
    monkeypatch.setenv("DIN_HOST", "::")
    settings = load_settings({"port": "9001"})
    assert (settings.port, settings.host) == (9001, "::")


@pytest.mark.parametrize("name", ["DIN_PROT", "din_prot", "DIN_"])
def test_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable with our prefix that is no setting, such as a misspelt one, is refused by name."""
    monkeypatch.setenv(name, "9000")
    with pytest.raises(SettingsError, match=f"^{name}: no such setting$"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("port", "http", id="not-a-number"),
        pytest.param("port", "65536", id="too-large"),
        pytest.param("port", "", id="empty"),
        pytest.param("max_batch_rows", "0", id="too-small"),
        pytest.param("max_batch_rows", "1.5", id="not-whole"),
        pytest.param("deadline_ms", "nan", id="nan"),
        pytest.param("log_level", "loud", id="not-a-choice"),
        pytest.param("access_log", "true", id="no-share"),
        pytest.param("access_log", "nan", id="share-that-is-nan"),
        pytest.param("trace_ratio", "1.1", id="more-than-all"),
        pytest.param("slow_ms", "-1", id="negative"),
        pytest.param("executors", "0", id="with-a-computed-default"),
    ],
)
def test_bad_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that its setting does not take is refused by name and value, from either source."""
    start = f"DIN_{name.upper()} = {value!r}: "
    with pytest.raises(SettingsError) as by_flag:
        load_settings({name: value})
    monkeypatch.setenv(f"DIN_{name.upper()}", value)
    with pytest.raises(SettingsError) as by_environment:
        load_settings()
    assert str(by_flag.value) == str(by_environment.value)
    assert str(by_flag.value).startswith(start)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        pytest.param(
            {"max_queue_rows": 10, "max_candidates": 11}, ("MAX_QUEUE_ROWS = 10", "MAX_CANDIDATES = 11"), id="queue"
        ),
        pytest.param({"max_delay_ms": 50, "deadline_ms": 50}, ("MAX_DELAY_MS = 50", "DEADLINE_MS = 50"), id="delay"),
    ],
)
def test_contradiction_is_refused(flags: dict[str, Any], names: tuple[str, str]) -> None:
    """Two settings that make no sense together are refused, naming both with their values."""
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)
    assert all(f"DIN_{name}" in str(caught.value) for name in names)


def test_describe_lists_every_setting() -> None:
    """The start-up listing has a line for each setting, in order, with its value."""
    lines = load_settings({"port": 9000}).describe().splitlines()
    assert [line.partition(" = ")[0] for line in lines] == list(Settings.model_fields)
    assert "port = 9000" in lines


def test_every_setting_is_described() -> None:
    """Each setting says what it is for: flags, README and listing take it from there."""
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        pytest.param("max 100000", 8, id="no-quota"),
        pytest.param("200000 100000", 2, id="two"),
        pytest.param("150000 100000", 2, id="one-and-a-half-rounded-up"),
        pytest.param("10000 100000", 1, id="a-tenth-is-one"),
        pytest.param("1600000 100000", 8, id="more-than-the-affinity"),
        pytest.param("", 8, id="empty"),
        pytest.param("what ever", 8, id="unreadable"),
    ],
)
def test_quota_limits_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, cpus: int) -> None:
    """Of eight CPUs a process may use as many as its cgroup's quota allows, rounded up, at least one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cpus(tmp_path / "cpu.max") == cpus


def test_affinity_without_cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no cgroup the affinity decides, and where there is no affinity the machine."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert usable_cpus(tmp_path / "missing") == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cpus(tmp_path / "missing") == 6
