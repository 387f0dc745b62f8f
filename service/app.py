"""Assembles the server: the service's life, its routes, and what each error looks like over HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__, admin, items, pages
from service.catalog_file import make_catalog
from service.config import Settings
from service.errors import RequestError
from service.garbage import collect_when_idle
from service.guard import GUARD, Guard
from service.life import Service
from service.loading import Opener
from service.metrics import Metrics
from service.middleware import Edge
from service.processes import Processes
from service.refusals import STATUS, refuse, translate
from service.registry import Registry
from service.release import Policy
from service.rollout import RolloutFile
from service.scorer import Scorer
from service.scoring import Scoring
from service.scoring import add_route as add_score
from service.shedding import GATE, Gate
from service.tokens import make_tokens
from service.watch import make_watch
from service.workers import Fleet

if TYPE_CHECKING:  # imported where traces are asked for
    from service.tracing import Tracing

logger = logging.getLogger(__name__)


class _Server(FastAPI):
    """FastAPI behind `Edge`; as one of FastAPI's own middlewares every score would pay 12 us for layers."""

    def __init__(self, edge: Callable[[ASGIApp], ASGIApp], **options: Any) -> None:
        super().__init__(**options)
        self._edge = edge(super().__call__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._edge(scope, receive, send)


def create_app(
    settings: Settings,
    opener: Opener,
    registry: CollectorRegistry | None = None,
    fleet: Fleet | None = None,
    tracing: "Tracing | None" = None,
) -> FastAPI:
    """Build the server.

    Args:
        settings: what it is told at start-up.
        opener: loads versions.
        registry: where its metrics go; None makes one that also has the process's own.
        fleet: the workers this process is one of, if it is not alone.
        tracing: traces some requests.

    Raises:
        SettingsError: the tokens or the catalog of the settings cannot be had.
    """
    if registry is None:
        registry = CollectorRegistry()
        if fleet is None:
            ProcessCollector(registry=registry)
    metrics = Metrics(registry, fleet.metrics() if fleet else None)
    metrics.executors(settings.executors)
    versions = Registry(
        settings.model_dir,
        opener,
        RolloutFile(settings.rollout_file, fleet.folder / "rollout.json" if fleet else None),
        loaded=lambda served: service.report(served),  # noqa: PLW0108  which does not exist yet
        refused=metrics.refused,
    )
    catalog = make_catalog(settings)
    service = Service(settings, metrics, versions, _make_scorer(settings, metrics), fleet, catalog)
    gate = Gate(service.scorer, metrics, settings.deadline_ms, settings.max_candidates)
    scoring = Scoring(service, gate, make_tokens(settings, "token"))

    guard = Guard(settings, metrics, refuse, service.drain)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        await service.start()
        tasks = [asyncio.create_task(collect_when_idle(lambda: service.scorer.busy))]
        if fleet:
            tasks += [asyncio.create_task(each) for each in (gate.publish(), Processes(registry).publish())]
        try:
            yield {GATE: gate, GUARD: guard}
        finally:
            for task in tasks:
                task.cancel()
            await service.stop()
            if tracing is not None:
                await tracing.stop(settings.grace_s)

    edge = partial(
        Edge,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        refuse=refuse,
        direct={("POST", "/score"): scoring.respond},
        watch=make_watch(settings, tracing),
    )
    app = _Server(
        edge,
        title="dinserve",
        summary="Click probabilities of candidate items, from a Deep Interest Network",
        version=__version__,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked up for each request: 15 us
        exception_handlers=dict.fromkeys((HTTPException, RequestError, ClientDisconnect, Exception), translate),
    )
    app.state.service = service
    add_score(app, scoring, STATUS)
    pages.add_routes(app, service, gate, STATUS)
    if catalog is not None:
        items.add_route(app, catalog, scoring.tokens, STATUS)
    if settings.playground:
        pages.add_playground(app)
    if (admins := make_tokens(settings, "admin_token")) is not None:
        admin.add_routes(app, service, admins, STATUS)
    return app


def _make_scorer(settings: Settings, metrics: Metrics) -> Scorer:
    policy = Policy(
        settings.max_batch_rows, settings.max_queue_rows, settings.max_delay_ms / 1000, settings.inline_ms / 1000
    )
    return Scorer(
        policy,
        settings.executors,
        lambda by, batch, run: metrics.batch(by.name, run.rows, run.requests, batch.padding, by.compilations()),
        settings.stall_s,
    )
