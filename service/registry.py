"""Which version serves: what stands in the model folder, what was decided, and what passed its checks.

`Registry.settle` makes what serves agree with the folder and with the rollout. A version is loaded beside the running
one and takes its place by one assignment; the old one is freed when the last request on it has ended, because nothing
refers to it any more.
"""

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service import artifact
from service.errors import ArtifactError, UnknownVersion, VersionRefused
from service.loading import Opener, Served, Stamp
from service.rollout import Rollout, RolloutFile, Share

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """A version that failed, and what its folder looked like then."""

    stamp: Stamp
    reason: str


class Registry:
    """Holds the versions that are loaded.

    Args:
        model_dir: folder of numbered versions.
        opener: loads versions.
        rollout: where decisions are kept; None: nowhere.
        loaded: called when a version has been loaded.
        refused: called when one has failed.
    """

    def __init__(
        self,
        model_dir: Path,
        opener: Opener,
        rollout: RolloutFile | None = None,
        *,
        loaded: Callable[[Served], None] = lambda _: None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._model_dir = model_dir
        self._opener = opener
        self._file = rollout
        self._on_load = loaded
        self._on_refuse = refused
        self.current: Served | None = None
        self.canary: Served | None = None
        self.shadow: Served | None = None
        self.rollout = Rollout()
        self.problem: str | None = "loading"  # why nothing serves
        self._unsaved: str | None = None  # why the rollout will be forgotten
        self._folder_problem: str | None = None
        self._found: dict[str, Path] = {}  # lowest version first
        self._refused: dict[str, Refused] = {}
        self._finalizers: weakref.WeakKeyDictionary[Served, Callable[[], object]] = weakref.WeakKeyDictionary()
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Load what should serve; returns when `current` is set, or `problem` says why it is not."""
        if self._file is not None:
            self.rollout, self._unsaved = await asyncio.to_thread(self._file.read)
        await self.settle()

    async def stop(self) -> None:
        """Serve nothing any more and free every version; no batch may be running."""
        self._opener.stop()
        async with self._lock:
            self.current = self.canary = self.shadow = None
            self.problem = "stopped"
            for free in list(self._finalizers.values()):
                free()

    async def settle(self) -> None:
        """Look at the folder and at what was decided, and load, swap and drop versions until they agree."""
        async with self._lock:
            if self._file is not None and (decided := await asyncio.to_thread(self._file.changed)) is not None:
                self.rollout = decided
            await self._look()
            await self._settle_current()
            await self._settle_shares()

    async def activate(self, version: str) -> None:
        """Pin a version: load it, also if it was refused before, and have it serve until another is chosen.

        Raises:
            UnknownVersion: there is no such version.
            VersionRefused: it failed its checks; what served goes on, and so does the pin that was.
        """
        async with self._lock:
            self.current = await self._demand(version)
            self.problem = None
            await self._decide(self.rollout.model_copy(update={"pin": version}))
            await self._settle_shares()

    async def follow_latest(self) -> None:
        """Undo a pin: the newest version that passes its checks serves."""
        async with self._lock:
            await self._decide(self.rollout.model_copy(update={"pin": None}))
            await self._look()
            await self._settle_current()
            await self._settle_shares()

    async def share(self, role: str, share: Share | None) -> None:
        """Set or end the `canary` or the `shadow`.

        Raises:
            UnknownVersion: there is no such version.
            VersionRefused: it failed its checks; nothing is changed.
        """
        async with self._lock:
            if share is not None:
                setattr(self, role, await self._demand(share.version))
            await self._decide(self.rollout.model_copy(update={role: share}))
            await self._settle_shares()

    def choose(self, request_id: str) -> Served | None:
        """The version that scores a request: the canary for its share of them, else the current one."""
        if self.canary is not None and self.rollout.canary is not None and self.rollout.canary.takes(request_id):
            return self.canary
        return self.current

    def shadow_of(self, request_id: str, served: Served) -> Served | None:
        """The version that runs a copy of a request that `served` has answered, if one does."""
        share = self.rollout.shadow
        if self.shadow is None or self.shadow is served or share is None or not share.takes(request_id, "shadow"):
            return None
        return self.shadow

    @property
    def problems(self) -> list[str]:
        """What keeps the versions from being as they should while one of them serves."""
        found = [each for each in (self._folder_problem, self._unsaved) if each]
        found += [each.reason for version, each in self._refused.items() if self._matters(version)]
        wanted = {"pin": self.rollout.pin}
        wanted |= {role: each.version for role in ("canary", "shadow") if (each := getattr(self.rollout, role))}
        missing = {each: role for role, each in wanted.items() if each and each not in self._found}
        return [*found, *(f"version {each}, the {role}, is not in {self._model_dir}" for each, role in missing.items())]

    def describe(self) -> list[dict[str, Any]]:
        """Every version of the folder and every loaded one, lowest first: what it does, and why not."""
        held = {each.version: each for each in self._held()}
        holders = {"serving": self.current, "canary": self.canary, "shadow": self.shadow}
        roles = {role: served.version for role, served in holders.items() if served is not None}
        return [
            {
                "version": version,
                "roles": [role for role, each in roles.items() if each == version],
                "engine": held[version].engine.name if version in held else None,
                "loaded_at": held[version].loaded_at if version in held else None,
                "refused": self._refused[version].reason if version in self._refused else None,
            }
            for version in sorted(self._found.keys() | held.keys(), key=int)
        ]

    def _held(self) -> list[Served]:
        return [each for each in (self.current, self.canary, self.shadow) if each is not None]

    def _matters(self, version: str) -> bool:
        """Whether a refused version should have served: it was chosen, or is newer than what serves unpinned."""
        chosen = {self.rollout.pin, *(each.version for each in (self.rollout.canary, self.rollout.shadow) if each)}
        newer = self.rollout.pin is None and self.current is not None and int(version) > int(self.current.version)
        return version in chosen or newer

    async def _look(self) -> None:
        """Read the folder."""
        try:
            found = await asyncio.to_thread(artifact.versions, self._model_dir)
            problem = None if found else f"{self._model_dir}: holds no version (a folder named by a number)"
        except ArtifactError as error:
            found, problem = [], str(error)
        self._found, self._folder_problem = {each.name: each for each in found}, problem
        self._refused = {version: each for version, each in self._refused.items() if version in self._found}

    async def _settle_current(self) -> None:
        """Have the pinned version serve, or else the newest that can; only a good one ever replaces what serves."""
        newest_first = list(reversed(self._found))
        if self.rollout.pin is None:
            wanted = newest_first
        else:
            wanted = [self.rollout.pin, *(newest_first if self.current is None else [])]
        for version in wanted:
            if self.current is not None and self.current.version == version:
                break
            if (served := await self._obtain(version)) is not None:
                self.current = served
                break
        if self.current is None:
            reasons = [self._refused[version].reason for version in wanted if version in self._refused]
            problem = reasons[0] if reasons else self._folder_problem or "loading"
            if problem != self.problem:  # not at every look
                logger.error("no version to serve: %s", problem)
            self.problem = problem
        else:
            self.problem = None

    async def _settle_shares(self) -> None:
        canary, shadow = self.rollout.canary, self.rollout.shadow
        self.canary = await self._obtain(canary.version) if canary else None
        self.shadow = await self._obtain(shadow.version) if shadow else None

    async def _decide(self, rollout: Rollout) -> None:
        self.rollout = rollout
        if self._file is not None:
            self._unsaved = await asyncio.to_thread(self._file.write, rollout)

    async def _demand(self, version: str) -> Served:
        """A version that somebody asked for by name."""
        await self._look()
        held = {each.version for each in self._held()}
        if version not in self._found and version not in held:
            raise UnknownVersion("the model folder holds no such version", "version")
        self._refused.pop(version, None)
        served = await self._obtain(version)
        if served is None:
            raise VersionRefused(self._refused[version].reason, "version")
        return served

    async def _obtain(self, version: str) -> Served | None:
        """A version that is loaded already, or is loaded now; None if it is missing, or refused and unchanged since."""
        for served in self._held():
            if served.version == version:
                return served
        folder = self._found.get(version)
        if folder is None:
            return None
        stamp = await asyncio.to_thread(self._opener.stamp, folder)
        known = self._refused.get(version)
        if known is not None and known.stamp == stamp:
            return None
        try:
            served = await asyncio.to_thread(self._opener.open, folder, stamp, self.current)
        except ArtifactError as error:
            self._refused[version] = Refused(stamp, str(error))
            logger.error("version %s does not serve: %s", version, error)  # noqa: TRY400  the message is the whole story
            self._on_refuse()
            return None
        self._refused.pop(version, None)
        self._finalizers[served] = weakref.finalize(served, _close, served.engine.close)
        self._on_load(served)
        return served


def _close(close: Callable[[], None]) -> None:
    """Free an engine, not in the thread that happened to use it last: that may be the event loop.

    No daemon: the process would abort if it ended while TensorFlow closes a session.
    """
    threading.Thread(target=close, name="free-version").start()
