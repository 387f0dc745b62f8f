"""The routes that decide which version serves. They exist only where a token for them is configured."""

from collections.abc import Callable

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from starlette.responses import Response

from service import errors, schema
from service.connection import read_body
from service.errors import RequestError
from service.life import Service
from service.middleware import CALL, Answer, Call
from service.registry import Registry
from service.tokens import Tokens

_REFUSALS = (errors.UnknownVersion, errors.VersionRefused)
_BODY = (errors.MalformedJson, errors.UnsupportedMediaType, errors.BodyTooLarge, errors.DeadlineExceeded)


def add_routes(app: FastAPI, service: Service, tokens: Tokens, status: dict[type[RequestError], int]) -> None:
    """Add every route of this module."""
    registry = service.registry

    async def only_admins(request: Request) -> None:
        call: Call = request.scope[CALL]
        tokens.check(call.headers)

    def responses(*kinds: type[RequestError]) -> dict[int | str, dict[str, object]]:
        documented = (errors.Unauthorized, errors.InvalidRequest, errors.RequestTimeout, errors.Internal, *kinds)
        return schema.error_responses({kind: number for kind, number in status.items() if kind in documented})

    bearer = HTTPBearer(scheme_name="admin_token", auto_error=False)
    router = APIRouter(
        prefix="/admin",
        tags=["admin"],
        dependencies=[Depends(bearer), Depends(only_admins)],
    )

    def answer() -> Answer:
        return Answer(200, _render(registry))

    @router.get("/versions", response_model=schema.VersionsResponse, responses=responses())
    async def versions() -> Response:
        """Every version of the model folder, what it does, and what was decided."""
        return answer()

    @router.post("/versions/follow-latest", response_model=schema.VersionsResponse, responses=responses())
    async def follow_latest() -> Response:
        """Undo a pin: the newest version that passes its checks serves."""
        await registry.follow_latest()
        return answer()

    @router.post(
        "/versions/{version}/activate", response_model=schema.VersionsResponse, responses=responses(*_REFUSALS)
    )
    async def activate(version: str) -> Response:
        """Pin a version: it is loaded if need be, serves from then on, and also after a restart.

        The answer comes when it serves, which takes some seconds.
        """
        await registry.activate(version)
        return answer()

    for role, what in (("canary", "answers"), ("shadow", "runs, unseen and unhurried, copies of")):
        _add_share(router, role, what, service, answer, responses)
    app.include_router(router)


def _add_share(
    router: APIRouter,
    role: str,
    what: str,
    service: Service,
    answer: Callable[[], Answer],
    responses: Callable[..., dict[int | str, dict[str, object]]],
) -> None:
    registry = service.registry
    body = {"schema": schema.Share.model_json_schema(), "example": schema.SHARE_EXAMPLE}

    async def begin(request: Request) -> Response:
        call: Call = request.scope[CALL]
        call.check_json()
        share = schema.decode_share(await read_body(request.receive, call.deadline(service.settings.deadline_ms)))
        await registry.share(role, share)
        return answer()

    async def end() -> Response:
        await registry.share(role, None)
        return answer()

    begin.__doc__ = f"Have a version be the {role}: it {what} a share of the requests, the same ones every time."
    end.__doc__ = f"End the {role}."
    described = {"requestBody": {"required": True, "content": {"application/json": body}}}
    path, model = f"/{role}", schema.VersionsResponse
    refusals = responses(*_REFUSALS, *_BODY)
    router.put(path, name=f"set {role}", response_model=model, responses=refusals, openapi_extra=described)(begin)
    router.delete(path, name=f"end {role}", response_model=model, responses=responses())(end)


def _render(registry: Registry) -> bytes:
    rollout = registry.rollout
    return schema.render_versions(
        pinned=rollout.pin,
        canary=rollout.canary,
        shadow=rollout.shadow,
        versions=registry.describe(),
        problems=registry.problems,
    )
