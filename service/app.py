"""Assembles the server: the service's life, its routes, and what each error looks like over HTTP."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__, admin, items, schema
from service.catalog_file import make_catalog
from service.config import Settings
from service.connection import read_body, while_connected
from service.errors import DeadlineExceeded, NotReady, Overloaded, RequestError
from service.explain import Explanation
from service.garbage import collect_when_idle
from service.guard import GUARD, Guard
from service.life import Service
from service.loading import Opener
from service.metrics import Metrics
from service.middleware import CALL, Answer, Call, Edge
from service.novelty import Novelty
from service.playground import Playground
from service.processes import Processes
from service.refusals import STATUS, refuse, translate
from service.registry import Registry
from service.release import Policy
from service.rollout import RolloutFile
from service.scorer import Scored, Scorer
from service.shadow import Copy
from service.shedding import GATE, Gate
from service.tokens import Tokens, make_tokens
from service.watch import make_watch
from service.workers import Fleet

if TYPE_CHECKING:  # imported where traces are asked for
    from service.tracing import Tracing

logger = logging.getLogger(__name__)

_INLINE_S = 0.0003  # some short requests; more than that, and others would notice
_TIMED = ("parse", "queue", "pack", "infer", "total")
_TIMING = ", ".join(f"{stage};dur=%r" for stage in _TIMED)


class Scoring:
    """POST /score.

    Args:
        service: what scores.
        gate: refuses what an overloaded server should not read.
        tokens: one of which a request must bring; None: anybody may score.
    """

    def __init__(self, service: Service, gate: Gate, tokens: Tokens | None) -> None:
        self._service = service
        self._gate = gate
        self.tokens = tokens
        self.limits = schema.Limits(service.settings.max_candidates, service.settings.max_history)
        self._novelty = Novelty(service.metrics.ids)

    async def respond(self, call: Call, receive: Receive) -> Answer:
        """Make the answer to one request.

        Raises:
            RequestError: it gets another answer.
            ClientDisconnect: nobody waits for it any more.
        """
        metrics = self._service.metrics
        metrics.enter()
        try:
            return await self._score(call, receive)
        except Overloaded as error:
            metrics.shed(error.reason)
            raise
        finally:
            metrics.leave()

    async def _score(self, call: Call, receive: Receive) -> Answer:
        service = self._service
        if self.tokens is not None:
            self.tokens.check(call.headers)
        call.check_json()
        served = service.serving(call.request_id)
        deadline = call.deadline(service.settings.deadline_ms)
        self._gate.check(call.headers, deadline)
        call.reading = True
        body = await read_body(receive, deadline, call.arrived + service.settings.body_timeout_s)
        call.reading = False
        read_at = time.monotonic()
        if read_at >= deadline:
            raise DeadlineExceeded("the deadline passed before the request was parsed")
        catalog = None if service.catalog is None else service.catalog.current
        query = schema.decode(body, served.manifest, self.limits, catalog)
        self._gate.learn(query.sample.rows, len(body))
        service.metrics.asked(query.sample.rows, query.lengths, truncated=query.truncated, empty=query.empty)
        if query.unknown:
            service.metrics.unknown_ids(query.unknown)
        parsed_at = time.monotonic()
        if call.notes is not None:
            call.notes.parsed(query.sample, served.version, read_at, parsed_at)
        explanation = None
        if query.explain:
            most = service.settings.max_explained
            explaining = service.scorer.explain(served, query.sample, deadline, query.top_k, most)
            scored, explanation = await while_connected(receive, explaining)
        else:
            scored = await while_connected(receive, service.scorer.score(served, query.sample, deadline))
        shadow = service.registry.shadow_of(call.request_id, served)
        if shadow is not None:
            again = partial(schema.decode, body, shadow.manifest, self.limits, catalog)  # it may see it otherwise
            service.shadow.offer(Copy(shadow, lambda: again().sample, scored.probabilities))
        self._novelty.offer(served, query.sample, read_at)
        return self._answer(call, query, scored, explanation, parsed_at - read_at)

    def _answer(
        self, call: Call, query: schema.Query, scored: Scored, explanation: Explanation | None, parse_s: float
    ) -> Answer:
        scored_at = time.monotonic()
        durations_s = (parse_s, scored.queue_s, scored.pack_s, scored.infer_s)
        spent_us = [round(seconds * 1e6) for seconds in (*durations_s, scored_at - call.arrived)]
        latency_ms = {stage: us / 1000 for stage, us in zip(_TIMED, spent_us, strict=True)}
        content = schema.render(
            scored.probabilities,
            explanation,
            query.top_k,
            {"name": scored.model, "version": scored.version},
            call.request_id,
            latency_ms,
        )
        metrics = self._service.metrics
        rendered_at = time.monotonic()
        if call.notes is not None:
            call.notes.answered(scored, scored_at, rendered_at)
        metrics.stages(*durations_s, rendered_at - scored_at, exemplar=call.exemplar)
        metrics.answered(
            scored.version, self._service.role(scored.version), scored_at - call.arrived, scored.probabilities
        )
        call.code = "ok"
        return Answer(200, content, [(b"server-timing", (_TIMING % tuple(latency_ms.values())).encode())])


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
    if catalog is not None and catalog.current is not None:
        metrics.catalog(len(catalog))
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
    _add_score(app, scoring, catalog=catalog is not None)
    _add_pages(app, service, gate)
    if catalog is not None:
        items.add_route(app, catalog, scoring.tokens, STATUS)
    if settings.playground:
        _add_playground(app, Playground())
    if (admins := make_tokens(settings, "admin_token")) is not None:
        admin.add_routes(app, service, admins, STATUS)
    return app


def _make_scorer(settings: Settings, metrics: Metrics) -> Scorer:
    inline_s = _INLINE_S if settings.executors == 1 else 0.0  # several run beside the event loop
    policy = Policy(settings.max_batch_rows, settings.max_queue_rows, settings.max_delay_ms / 1000, inline_s)
    return Scorer(
        policy,
        settings.executors,
        lambda by, batch: metrics.batch(by.name, sum(batch.rows), len(batch.rows), batch.padding, by.compilations()),
        settings.stall_s,
    )


def _add_score(app: FastAPI, scoring: Scoring, *, catalog: bool) -> None:
    """Document POST /score, and answer it under the paths that `Edge` does not know, as below a root path."""
    bearer = HTTPBearer(scheme_name="score_token", auto_error=False)  # for the document: `scoring` asks for it

    @app.post(
        "/score",
        summary="Score candidates",
        dependencies=[Depends(bearer)] if scoring.tokens else [],
        response_model=schema.ScoreResponse,
        responses={
            200: {"content": {"application/json": {"example": schema.RESPONSE_EXAMPLE}}},
            **schema.error_responses(STATUS),
        },
        openapi_extra=schema.score_request(scoring.limits, catalog=catalog),
    )
    async def score(request: Request) -> Response:
        """Answer the click probability of each candidate, given one user's history."""
        return await scoring.respond(request.scope[CALL], request.receive)


def _add_pages(app: FastAPI, service: Service, gate: Gate) -> None:
    """The routes for operators."""

    @app.get("/health", response_model=schema.HealthResponse, responses=schema.health_responses())
    @app.get("/health/ready", response_model=schema.HealthResponse, responses=schema.health_responses())
    async def health() -> Response:
        """Whether the service can score now, and each thing that this depends on."""
        return _report(service, ready=service.ready)

    @app.get("/health/started", response_model=schema.HealthResponse, responses=schema.health_responses())
    async def started() -> Response:
        """Whether the first version has been loaded; until then, nothing else should be concluded."""
        return _report(service, ready=service.started)

    @app.get("/health/live", response_model=schema.HealthResponse, responses=schema.health_responses())
    async def live() -> Response:
        """Whether the process works; if not, it should be restarted."""
        return _report(service, ready=service.scorer.alive)

    @app.get("/metrics", response_class=Response, responses=schema.metrics_responses())
    async def metrics(request: Request) -> Response:
        """Metrics in the Prometheus or OpenMetrics text format."""
        served = service.registry.current
        if served is not None:
            service.metrics.model(served.manifest.name, served.version, served.engine.name)
        gate.report()
        content, content_type = service.metrics.exposition(request.headers.get("accept", ""))
        return Answer(200, content, content_type=content_type.encode())

    @app.get(
        "/model", response_model=schema.ModelResponse, responses=schema.error_responses({NotReady: STATUS[NotReady]})
    )
    async def model() -> Response:
        """The manifest of the serving version, and the engine that computes it."""
        served = service.serving()
        return Answer(
            200,
            schema.render_model(
                served.manifest, served.engine.name, served.engine.fallback_reason, service.registry.rollout
            ),
        )


def _add_playground(app: FastAPI, playground: Playground) -> None:
    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        """A page for trying the API in a browser."""
        return playground.respond(request.headers.get("if-none-match"))


def _report(service: Service, *, ready: bool) -> Answer:
    headers = [] if ready else [(b"retry-after", b"1")]
    return Answer(200 if ready else 503, schema.render_health(service.health()), headers)
