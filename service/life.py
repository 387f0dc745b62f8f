"""What lives as long as the server, in the order it starts and stops, and whether it is ready."""

import asyncio
import logging
import time
from typing import Any

from service import STARTED
from service.config import Settings
from service.errors import NotReady
from service.metrics import Metrics
from service.registry import Registry, Served
from service.scorer import Scorer
from service.workers import Fleet

logger = logging.getLogger(__name__)


class Service:
    """What lives as long as the server: the versions, the scorer, and whether they are ready."""

    def __init__(
        self, settings: Settings, metrics: Metrics, registry: Registry, scorer: Scorer, fleet: Fleet | None = None
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.registry = registry
        self.scorer = scorer
        self.fleet = fleet
        self.draining = False
        self._started = time.monotonic()
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the executors, and the model's loading in the background: the server listens meanwhile.

        One worker of several listens only when it has loaded: until then the others answer in its place.
        """
        await self.scorer.start()
        self._loading = asyncio.create_task(self._load())
        if self.fleet is not None:
            await self._loading

    def drain(self) -> None:
        """Say not ready from now on, and go on answering."""
        self.draining = True
        self._publish()

    async def stop(self) -> None:
        """Say not ready, finish what is in flight within the grace period, stop."""
        self.drain()
        cut = await self.scorer.stop(self.settings.grace_s)
        if cut:
            logger.warning("cut %d requests after a grace period of %d s", cut, self.settings.grace_s)
        if self._loading is not None:
            await self._loading  # a version half loaded cannot be freed
        await self.registry.stop()

    async def loaded(self) -> None:
        """Wait until loading has ended, well or badly."""
        if self._loading is not None:
            await asyncio.wait([self._loading])

    def serving(self) -> Served:
        """The version that scores a request arriving now.

        Raises:
            NotReady: there is none.
        """
        if self.registry.current is None:
            raise NotReady(f"the service is {self.status}")
        return self.registry.current

    @property
    def status(self) -> str:
        """One of ok, degraded (other workers are not ready), loading, draining, failed."""
        if self.draining:
            return "draining"
        if self.registry.current is None:
            return "failed" if self._loading is None or self._loading.done() else "loading"
        if not self.scorer.alive:
            return "failed"
        return "ok" if self.fleet is None or self.fleet.check()["ok"] else "degraded"

    @property
    def ready(self) -> bool:
        """Whether a request arriving now would be scored."""
        return self.status in {"ok", "degraded"}

    def health(self) -> dict[str, Any]:
        """The body of the health routes."""
        served = self.registry.current
        workers = {"workers": self.fleet.check()} if self.fleet is not None else {}
        return {
            "status": self.status,
            "model": served and served.manifest.name,
            "version": served and served.version,
            "engine": served and served.engine.name,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "checks": {
                "model": {"ok": served is not None, "detail": self.registry.problem or _how_loaded(served)},
                "executors": {"ok": self.scorer.alive, "detail": self.scorer.state},
                "accepting": {"ok": not self.draining, "detail": "draining" if self.draining else "yes"},
                **workers,
            },
        }

    async def _load(self) -> None:
        try:
            await self.registry.start()
        except Exception:
            logger.exception("the newest version could not be loaded")
        if self.registry.current is not None:
            self._report(self.registry.current)
        self._publish()

    def _report(self, served: Served) -> None:
        """Say what it took to become ready."""
        ready_s = time.monotonic() - STARTED
        self.metrics.loaded(
            ready_s,
            served.load_s,
            served.memory_bytes,
            served.compilations,
            fallback=bool(served.engine.fallback_reason),
        )
        logger.info(
            "serving %s version %s with %s: ready after %.1f s; loading took %.1f s and %.0f MB, compilations: %d",
            served.manifest.name,
            served.version,
            served.engine.name,
            ready_s,
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
