"""What lives as long as the server, in the order it starts and stops, and whether it is ready."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from service import STARTED
from service.catalog import dtypes_of
from service.catalog_file import CatalogFile
from service.config import Settings
from service.drift import BOUNDS
from service.errors import NotReady
from service.loading import Served
from service.metrics import Metrics
from service.registry import Registry
from service.scorer import Scorer
from service.shadow import Shadow
from service.workers import Fleet

FOLLOW_S = 0.5  # between looks of a worker at what the others were told

logger = logging.getLogger(__name__)


class Service:
    """What lives as long as the server: the versions, the scorer, and whether they are ready."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        registry: Registry,
        scorer: Scorer,
        fleet: Fleet | None = None,
        catalog: CatalogFile | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.registry = registry
        self.scorer = scorer
        self.fleet = fleet
        self.catalog = catalog
        self.draining = False
        self.shadow = Shadow(lambda: scorer.spare, metrics)
        self._started = time.monotonic()
        self._tried = asyncio.Event()  # the first loading has ended, well or badly
        self._stopping = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the executors, and the versions' loading in the background: the server listens meanwhile.

        One worker of several listens only when it has loaded: until then the others answer in its place.
        """
        await self.scorer.start()
        if self.catalog is not None and self.catalog.current is not None:
            self.metrics.catalog(len(self.catalog))
        self._watching = asyncio.create_task(self._watch())
        if self.fleet is not None:
            await self.loaded()

    def drain(self) -> None:
        """Say not ready from now on, and go on answering."""
        self.draining = True
        self._publish()

    async def stop(self) -> None:
        """Say not ready, finish what is in flight within the grace period, stop.

        A server that has drained has waited for its requests, and says which it cut: what is left is refused at once.
        """
        grace_s = 0 if self.draining else self.settings.grace_s
        self.drain()
        await self.scorer.stop(grace_s)
        self._stopping.set()
        self.shadow.stop()
        await self.registry.stop()
        if self._watching is not None:
            await self._watching

    async def loaded(self) -> None:
        """Wait until the first loading has ended, well or badly."""
        await self._tried.wait()

    def serving(self, request_id: str = "") -> Served:
        """The version that scores a request arriving now.

        Raises:
            NotReady: there is none.
        """
        served = self.registry.choose(request_id)
        if served is None:
            raise NotReady(f"the service is {self.status}")
        return served

    def role(self, version: str) -> str:
        """What a version that has just answered is, or was when it was chosen."""
        canary = self.registry.canary
        return "canary" if canary is not None and version == canary.version else "serving"

    @property
    def status(self) -> str:
        """One of ok, degraded (serving, but not as it should: `checks` has the reason), loading, draining, failed."""
        if self.draining:
            return "draining"
        if self.registry.current is None:
            return "failed" if self._tried.is_set() else "loading"
        if not self.scorer.alive:
            return "failed"
        complete = self.fleet is None or self.fleet.check()["ok"]
        known = self.catalog is None or self.catalog.problem is None
        return "ok" if complete and known and not self.registry.problems else "degraded"

    @property
    def started(self) -> bool:
        """Whether the first version has been loaded; there is one from then on, until the service has stopped."""
        return self.registry.current is not None

    @property
    def ready(self) -> bool:
        """Whether a request arriving now would be scored."""
        return self.status in {"ok", "degraded"}

    def health(self) -> dict[str, Any]:
        """The body of the health routes."""
        served = self.registry.current
        workers = {"workers": self.fleet.check()} if self.fleet is not None else {}
        catalog = {"catalog": self.catalog.check()} if self.catalog is not None else {}
        problems = self.registry.problems
        return {
            "status": self.status,
            "model": served and served.manifest.name,
            "version": served and served.version,
            "engine": served and served.engine.name,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "checks": {
                "model": {"ok": served is not None, "detail": self.registry.problem or _how_loaded(served)},
                "versions": {"ok": not problems, "detail": "; ".join(problems) or "as decided"},
                "executors": {"ok": self.scorer.alive, "detail": self.scorer.state},
                "accepting": {"ok": not self.draining, "detail": "draining" if self.draining else "yes"},
                **catalog,
                **workers,
            },
        }

    async def _watch(self) -> None:
        """Load what should serve, then look for changes until stopped."""
        await self._settle(self.registry.start)
        await self._settle(self._follow_catalog)
        self._tried.set()
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._pause_s())
                return
            await self._settle(self.registry.settle)
            await self._settle(self._follow_catalog)

    async def _follow_catalog(self) -> None:
        """Read the catalog if it has changed, or the first version takes other types than the newest should have."""
        served = self.registry.current
        if self.catalog is None or served is None:
            return
        good = await asyncio.to_thread(self.catalog.refresh, dtypes_of(served.manifest))
        if good is not None:
            self.metrics.catalog(len(self.catalog) if good else None)

    async def _settle(self, settle: Callable[[], Awaitable[None]]) -> None:
        try:
            await settle()
        except Exception:
            logger.exception("the versions, or the catalog, could not be looked at")
        self._publish()

    def _pause_s(self) -> float | None:
        """How long until the folder is looked at again; workers must soon learn what one of them was told."""
        poll_s = self.settings.poll_s or None
        return poll_s if self.fleet is None or poll_s is None else min(poll_s, FOLLOW_S)

    def report(self, served: Served) -> None:
        """A version has been loaded: say what that took."""
        ready_s = None if self._tried.is_set() else time.monotonic() - STARTED
        self.metrics.loaded(
            ready_s,
            served.load_s,
            served.memory_bytes,
            served.compilations,
            fallback=bool(served.engine.fallback_reason),
        )
        manifest, scores = served.manifest, served.manifest.scores
        comparable = scores is not None and scores.bounds == BOUNDS
        self.metrics.version(
            served.version,
            served.loaded_at,
            manifest.created_s,
            scores.clicks if scores else None,
            scores.shares if scores and comparable else None,
        )
        logger.info(
            "%s version %s serves with %s%s; loading took %.1f s and %.0f MB, compilations: %d",
            served.manifest.name,
            served.version,
            served.engine.name,
            "" if ready_s is None else f": ready after {ready_s:.1f} s",
            served.load_s,
            served.memory_bytes / 1e6,
            served.compilations,
        )

    def _publish(self) -> None:
        """Tell the other workers."""
        if self.fleet is not None:
            self.fleet.publish(ready=self.registry.current is not None and not self.draining)


def _how_loaded(served: Served | None) -> str:
    reason = served and served.engine.fallback_reason
    return f"loaded, but not with the native engine: {reason}" if reason else "loaded"
