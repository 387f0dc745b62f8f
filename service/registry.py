"""Versions on disk: find, verify, load, prove against golden answers, warm; then serve by one reference."""

import asyncio
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from service import artifact
from service.artifact import Manifest
from service.engine import Engine
from service.errors import ArtifactError

Loader: TypeAlias = Callable[[Path, Manifest], Engine]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A version that may answer requests."""

    manifest: Manifest
    engine: Engine
    loaded_at: float  # wall clock, seconds
    load_s: float  # reading, proving and warming took this long
    memory_bytes: int = 0  # resident memory that they added
    compilations: int = 0  # programs compiled for it

    @property
    def version(self) -> str:
        """The number of its folder."""
        return self.manifest.version


def open_version(folder: Path, loader: Loader) -> Served:
    """Verify, load, warm and prove one version.

    Raises:
        ArtifactError: whatever is wrong with it, in one sentence.
    """
    started, before_bytes = time.monotonic(), resident_bytes()
    manifest = artifact.read_manifest(folder)
    artifact.check_files(folder, manifest)
    try:
        engine = _prove(folder, manifest, loader(folder, manifest))
    except ArtifactError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ArtifactError(f"{folder}: does not run: {type(error).__name__}: {reason}") from error
    load_s, memory_bytes = time.monotonic() - started, resident_bytes() - before_bytes
    return Served(manifest, engine, time.time(), load_s, memory_bytes, engine.compilations())


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Memory this process holds; where the system does not say, as on macOS, the most that it ever held."""
    try:
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _prove(folder: Path, manifest: Manifest, engine: Engine) -> Engine:
    """Warm an engine and check its golden answers; close it if that fails."""
    try:
        engine.warm()
        if artifact.GOLDEN in manifest.files:
            _check_golden(folder, manifest, engine)
    except BaseException:
        engine.close()
        raise
    return engine


def _check_golden(folder: Path, manifest: Manifest, engine: Engine) -> None:
    """Compare whatever an engine answers probabilities by with the golden ones, one request a batch."""
    for request in artifact.read_golden(folder).requests:
        place = f"{folder}: golden request {request.name!r}"
        batch = engine.pack([artifact.golden_sample(manifest, request)])
        if sum(batch.rows) != len(request.probabilities):
            raise ArtifactError(f"{place}: {len(request.probabilities)} probabilities for {sum(batch.rows)} candidates")
        answers = [engine.run(batch), engine.explain(batch)[0]] if engine.explains else [engine.run(batch)]
        for answer in answers:
            difference = float(np.abs(batch.split(answer)[0] - np.array(request.probabilities)).max())
            if not difference <= artifact.TOLERANCE:  # NaN fails too
                raise ArtifactError(f"{place}: off by {difference:.2g}")


class Registry:
    """Knows which version serves now, and why there is none."""

    def __init__(self, model_dir: Path, loader: Loader) -> None:
        self._model_dir = model_dir
        self._loader = loader
        self.current: Served | None = None
        self.problem: str | None = "loading"

    async def start(self) -> None:
        """Load the newest version; returns when `current` is set, or `problem` says why it is not."""
        try:
            served = await asyncio.to_thread(self._open_newest)
        except ArtifactError as error:
            self.problem = str(error)
            logger.error("no version to serve: %s", error)  # noqa: TRY400  the message is the whole story
            return
        self.current, self.problem = served, None

    async def stop(self) -> None:
        """Serve nothing any more and free the version; no batch may be running."""
        served, self.current, self.problem = self.current, None, "stopped"
        if served is not None:
            served.engine.close()

    def _open_newest(self) -> Served:
        found = artifact.versions(self._model_dir)
        if not found:
            raise ArtifactError(f"{self._model_dir}: holds no version (a folder named by a number)")
        return open_version(found[-1], self._loader)
