"""Settings: defaults, environment (`DIN_...`), flags, and the checks that only make sense across them.

One class is the single source: the environment names, the flags of `dinserve serve`, the README table and the start-up
print-out all come from its fields.
"""

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SettingsError


def usable_cpus(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this process may use: its affinity, further limited by a cgroup v2 quota (rounded up)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, cpu_max.read_text().split())
    except (OSError, ValueError):  # no such file, or "max 100000": no quota
        return cpus
    return max(1, min(cpus, -(-quota // period)))


EngineChoice: TypeAlias = Literal["auto", "native", "tensorflow"]


class Settings(BaseSettings):
    """What a server is told once, at start-up."""

    model_config = SettingsConfigDict(env_prefix="DIN_", frozen=True, extra="forbid", protected_namespaces=())

    model_dir: Path = Field(
        Path("model_artifacts/din"), description="folder of numbered versions; the highest is served"
    )
    engine: EngineChoice = Field(
        "auto", description="what computes the model; auto is native, or TensorFlow where that cannot be or differs"
    )
    poll_s: float = Field(
        5.0, ge=0, description="how often the model folder is looked at for new versions, in seconds; 0: never"
    )
    rollout_file: Path = Field(
        default_factory=lambda settings: settings["model_dir"] / "rollout.json",
        description="where the pin, the canary and the shadow are kept over a restart",
    )
    allowed_manifests: Path | None = Field(
        None, description="file of sha256 sums, one a line; a version whose manifest is not among them is not loaded"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 lets the system choose")
    max_candidates: int = Field(2000, ge=1, description="most candidates in a request")
    max_history: int = Field(
        2000, ge=0, description="most ids, and most tags, in a request's history; the model keeps its newest"
    )
    max_body_bytes: int = Field(1 << 19, ge=1, description="longest body accepted, in bytes")
    max_header_bytes: int = Field(1 << 14, ge=256, description="longest request line and headers accepted, in bytes")
    max_connections: int = Field(4096, ge=1, description="most open connections, in each worker; others are refused")
    header_timeout_s: float = Field(
        10.0, gt=0, description="longest that a connection may take to send a request's headers, in seconds"
    )
    body_timeout_s: float = Field(
        10.0,
        gt=0,
        description="longest that a body may take to arrive, whatever the deadline, or an answer to be read, in s",
    )
    max_batch_rows: int = Field(1024, ge=1, description="most candidates the engine runs at once")
    # A fifth of a second of what a core does with the committed model: a pause of that length refuses nobody. More than
    # waits in the core's caches makes each request dearer, so that a long queue does not go away by itself; so one that
    # stays full is made short (`Admission.standing`).
    max_queue_rows: int = Field(1 << 16, ge=1, description="most candidates waiting; beyond, requests are refused")
    max_delay_ms: float = Field(
        0.0, ge=0, le=1000, description="longest a request waits for company while an executor is idle, in ms"
    )
    deadline_ms: float = Field(
        1000.0, gt=0, description="a request's time when it brings no X-Deadline-Ms header, in ms"
    )
    workers: int = Field(
        1, ge=1, description="processes that share the port, for machines where one event loop is not enough"
    )
    executors: int = Field(
        default_factory=lambda settings: max(1, usable_cpus() // settings["workers"]),
        ge=1,
        description="threads that run batches, in each worker",
    )
    # A thread and the event loop on one core take turns of 3 to 5 ms, which makes both late (benchmarks/RESULTS.md).
    inline_ms: float = Field(
        default_factory=lambda settings: 5.0 if settings["executors"] == 1 else 0.0,
        ge=0,
        le=1000,
        description="longest that a batch should take to run on the event loop, and not in an executor, in ms; 0: none",
    )
    # Part of the compiled code runs on these threads, whichever executor called it. Against one caller, one thread and
    # one core (one engine, 500 x 50), two callers on two cores reach 1.2 with one thread, 1.8 with two.
    intra_op_threads: int = Field(
        default_factory=lambda settings: settings["executors"],
        ge=1,
        description="TensorFlow threads inside operations, shared by a worker's executors",
    )
    inter_op_threads: int = Field(1, ge=1, description="TensorFlow threads across operations of one batch")
    keep_alive_s: int = Field(75, ge=1, description="how long an idle connection stays open, in seconds")
    drain_delay_s: float = Field(
        0.0, ge=0, description="how long, after SIGTERM, requests are still accepted while ready says no, in seconds"
    )
    grace_s: int = Field(10, ge=0, description="longest wait for requests in flight at shutdown, in seconds")
    stall_s: float = Field(
        30.0, gt=0, description="a batch that runs longer than this makes the process not live, in seconds"
    )
    token: SecretStr | None = Field(None, description="bearer token that POST /score asks for; none: anybody may score")
    token_file: Path | None = Field(
        None, description="file of such tokens, one a line; read again when it changes, so that they can be rotated"
    )
    admin_token: SecretStr | None = Field(
        None, description="bearer token that the admin routes ask for; without one, or a file, there are no such routes"
    )
    admin_token_file: Path | None = Field(
        None, description="file of such tokens, one a line; read again when it changes"
    )
    tls_cert: Path | None = Field(None, description="certificate chain, PEM; with it and a key, HTTPS is served")
    tls_key: Path | None = Field(None, description="the certificate's private key, PEM")
    tls_client_ca: Path | None = Field(
        None, description="certificate authorities, PEM; clients must bring a certificate that one of them signed"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level logged")
    log_format: Literal["text", "json"] = Field("text", description="lines for people, or a JSON object a line")
    access_log: float = Field(0.0, ge=0, le=1, description="share of requests that get a line in the log; 1: all")
    slow_ms: float | None = Field(
        None, ge=0, description="requests to score that take longer are logged with the time of each stage, in ms"
    )
    trace_ratio: float = Field(
        0.0, ge=0, le=1, description="share of requests to score that are traced, if their traceparent does not decide"
    )
    max_explained: int = Field(
        50, ge=1, description="most candidates of a request that are explained, where it asks for that"
    )
    playground: bool = Field(default=True, description="whether GET / shows a page for trying the API in a browser")
    catalog: Path | None = Field(
        None,
        description="file of the items, CSV or Parquet with columns id, tag, title; looked at every DIN_POLL_S",
    )

    def describe(self) -> str:
        """One `name = value` line a setting, in the order of the class."""
        return "\n".join(f"{name} = {value}" for name, value in self)


def load_settings(flags: dict[str, Any] | None = None) -> Settings:
    """Read settings: flags win over the environment, the environment over defaults.

    Raises:
        SettingsError: a value is refused, an environment variable starts with DIN_ but is no setting, or two settings
            contradict each other; the message names them.
    """
    known = {f"DIN_{name.upper()}" for name in Settings.model_fields}
    for name in os.environ:
        if name.upper().startswith("DIN_") and name.upper() not in known:
            raise SettingsError(f"{name}: no such setting")
    try:
        settings = Settings(**(flags or {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise SettingsError(f"DIN_{name.upper()} = {first['input']!r}: {first['msg']}") from error
    _cross_check(settings)
    return settings


def _cross_check(settings: Settings) -> None:
    if settings.max_queue_rows < settings.max_candidates:
        raise SettingsError(
            f"DIN_MAX_QUEUE_ROWS = {settings.max_queue_rows}: below DIN_MAX_CANDIDATES = {settings.max_candidates}, "
            "the largest request could never be queued"
        )
    if settings.max_delay_ms >= settings.deadline_ms:
        raise SettingsError(
            f"DIN_MAX_DELAY_MS = {settings.max_delay_ms}: not below DIN_DEADLINE_MS = {settings.deadline_ms}"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given, other = ("CERT", "KEY") if settings.tls_key is None else ("KEY", "CERT")
        raise SettingsError(f"DIN_TLS_{given} is given and DIN_TLS_{other} is not: HTTPS needs both")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise SettingsError(
            "DIN_TLS_CLIENT_CA is given and DIN_TLS_CERT is not: without HTTPS nobody shows a certificate"
        )
    if settings.admin_token is not None and settings.admin_token == settings.token:
        raise SettingsError("DIN_ADMIN_TOKEN: the same as DIN_TOKEN, so that whoever may score could change versions")
