"""The routes for operators: health, metrics, the model; and the page for people."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from service import schema
from service.errors import NotReady, RequestError
from service.life import Service
from service.middleware import Answer
from service.playground import Playground
from service.shedding import Gate


def add_routes(app: FastAPI, service: Service, gate: Gate, status: dict[type[RequestError], int]) -> None:
    """Add the routes.

    Args:
        app: the server.
        service: what they tell of.
        gate: knows what waits.
        status: of each error.
    """

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
        "/model", response_model=schema.ModelResponse, responses=schema.error_responses({NotReady: status[NotReady]})
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


def add_playground(app: FastAPI) -> None:
    """Add the page at /."""
    playground = Playground()

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        """A page for trying the API in a browser."""
        return playground.respond(request.headers.get("if-none-match"))


def _report(service: Service, *, ready: bool) -> Answer:
    headers = [] if ready else [(b"retry-after", b"1")]
    return Answer(200 if ready else 503, schema.render_health(service.health()), headers)
