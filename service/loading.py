"""Makes one version ready to serve: verified, loaded, warmed, proven against its golden answers.

While another version serves, a new one must also ask for the same requests, and is first tried in another process.
"""

import contextlib
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from service import artifact
from service.artifact import Manifest
from service.batch import Sample
from service.engine import Engine
from service.errors import ArtifactError
from service.seen import SeenIds, read_seen
from service.trial import Trials, Verdict

Loader: TypeAlias = Callable[[Path, Manifest], Engine]
Tried: TypeAlias = Callable[[Path, Manifest, Verdict], Engine]
Stamp: TypeAlias = tuple[tuple[object, ...], ...]

MOST_PROVEN = 8


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Served:
    """A version that may answer requests."""

    manifest: Manifest
    engine: Engine
    loaded_at: float  # wall clock, seconds
    load_s: float  # reading, proving and warming took this long
    memory_bytes: int = 0  # resident memory that they added
    compilations: int = 0  # programs compiled for it
    seen: SeenIds | None = None  # the item ids that it met in training

    @property
    def version(self) -> str:
        """The number of its folder."""
        return self.manifest.version


def open_version(folder: Path, loader: Loader, *, verified: bool = False) -> Served:
    """Verify, load, warm and prove one version.

    Args:
        folder: the version's.
        loader: makes its engine.
        verified: whether its checksums are known to hold.

    Raises:
        ArtifactError: whatever is wrong with it, in one sentence.
    """
    started, before_bytes = time.monotonic(), resident_bytes()
    manifest = artifact.read_manifest(folder)
    if not verified:
        artifact.check_files(folder, manifest)
    seen = read_seen(folder, manifest.seen)
    try:
        engine = _prove(folder, manifest, loader(folder, manifest))
    except ArtifactError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ArtifactError(f"{folder}: does not run: {type(error).__name__}: {reason}") from error
    load_s, memory_bytes = time.monotonic() - started, resident_bytes() - before_bytes
    return Served(manifest, engine, time.time(), load_s, memory_bytes, engine.compilations(), seen)


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
        _check_finite(folder, manifest, engine)
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


def _check_finite(folder: Path, manifest: Manifest, engine: Engine) -> None:
    """Score a few requests of which nothing is known but that the answers are probabilities."""
    features = manifest.features
    for length in (0, 1, 3):
        history = [artifact.to_array(list(range(length)), each.dtype) for each in (features.id, features.tag)]
        targets = [artifact.to_array(list(range(8)), each.dtype) for each in (features.id, features.tag)]
        batch = engine.pack([Sample(*history, *targets)])
        answer = batch.split(engine.run(batch))[0]
        if not np.all((answer >= 0) & (answer <= 1)):  # NaN fails too
            raise ArtifactError(f"{folder}: answers with something that is no probability")


class Opener:
    """Loads versions for a server. Its methods take seconds, so they belong into a thread.

    Args:
        loader: loads a version and proves it, in this process.
        trials: where a version is tried while another serves; None: in this process, by `loader`.
        tried: loads what a trial has proven.
        allowed: file of the checksums of manifests that may be loaded; None: any.
    """

    def __init__(
        self,
        loader: Loader,
        trials: Trials | None = None,
        tried: Tried | None = None,
        allowed: Path | None = None,
    ) -> None:
        self._loader = loader
        self._trials = trials
        self._tried = tried
        self._allowed = allowed
        self._proven: dict[Stamp, Loader] = {}  # what needs no second trial, oldest first

    def stamp(self, folder: Path) -> Stamp:
        """What changes when a version's files change, its report's excepted, or what is allowed does."""
        stamps: list[tuple[object, ...]] = []
        for file in (*artifact.served_paths(folder), *([self._allowed] if self._allowed else [])):
            with contextlib.suppress(OSError):  # gone meanwhile, which changes the stamp too
                stat = file.stat()
                stamps.append((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino))
        return tuple(stamps)

    def open(self, folder: Path, stamp: Stamp, running: Served | None) -> Served:
        """Load a version, stamped so, that is to serve beside the one that does.

        Raises:
            ArtifactError: it may not, or cannot, take that one's place.
        """
        if self._allowed is not None:
            artifact.check_allowed(folder, self._allowed)
        if running is None:
            return open_version(folder, self._loader)
        manifest = artifact.read_manifest(folder)
        _check_contract(folder, manifest, running.manifest)
        loader = self._proven.get(stamp) or self._try(folder, stamp)
        if self.stamp(folder) != stamp and not self._only_reported(folder, stamp, manifest):
            raise ArtifactError(f"{folder}: changed while it was tried")
        served = open_version(folder, loader, verified=loader is not self._loader)  # a trial has read every byte
        self._proven[stamp] = loader
        while len(self._proven) > MOST_PROVEN:
            del self._proven[next(iter(self._proven))]
        return served

    def stop(self) -> None:
        """End a trial that is under way, and start no other."""
        if self._trials is not None:
            self._trials.stop()

    def _only_reported(self, folder: Path, stamp: Stamp, manifest: Manifest) -> bool:
        """Whether all that has changed since is that an evaluation has sealed its report."""
        named, before = ({each[0]: each for each in stamps} for stamps in (self.stamp(folder), stamp))
        changed = {name for name in named.keys() | before.keys() if named.get(name) != before.get(name)}
        if changed != {str(folder / artifact.MANIFEST)}:
            return False
        if self._allowed is not None:
            artifact.check_allowed(folder, self._allowed)
        return artifact.same_model(artifact.read_manifest(folder), manifest)

    def _try(self, folder: Path, stamp: Stamp) -> Loader:
        if self._trials is None or self._tried is None:
            return self._loader
        verdict, tried = self._trials.run(folder, stamp), self._tried
        return lambda version, manifest: tried(version, manifest, verdict)


def _check_contract(folder: Path, new: Manifest, running: Manifest) -> None:
    """Check that callers need not change what they send.

    Raises:
        ArtifactError: it is another model, or takes values of another type.
    """
    if new.name != running.name:
        raise ArtifactError(f"{folder}: is the model {new.name}, the running version is {running.name}")
    for feature in ("id", "tag"):
        ours, theirs = getattr(running.features, feature).dtype, getattr(new.features, feature).dtype
        if ours != theirs:
            raise ArtifactError(f"{folder}: takes {feature}s as {theirs}, the running version as {ours}")
