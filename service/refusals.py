"""What each error looks like over HTTP: its status, its body, its headers."""

import logging
from collections.abc import Iterable

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from service import errors, schema
from service.admission import retry_after_s
from service.errors import DeadlineExceeded, Internal, Overloaded, RequestError, RequestTimeout
from service.logs import Fields, fields
from service.middleware import CALL, CLIENT_CLOSED, Answer, Call

logger = logging.getLogger(__name__)

STATUS: dict[type[RequestError], int] = {
    errors.MalformedJson: 400,
    errors.MalformedHttp: 400,
    errors.Unauthorized: 401,
    errors.NotFound: 404,
    errors.UnknownVersion: 404,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.VersionRefused: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.InvalidRequest: 422,
    errors.HeadersTooLarge: 431,
    errors.Internal: 500,
    errors.NotReady: 503,
    errors.Overloaded: 503,
    errors.DeadlineExceeded: 504,
}
_HEADERS = {401: [(b"www-authenticate", b"Bearer")], 503: [(b"retry-after", b"1")]}
_BLAND = "the server failed on this request; its log has the details under the request id"
_ROUTING = {404: errors.NotFound("there is no such path"), 405: errors.MethodNotAllowed("the path has other methods")}
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_CLIENT_CLOSED_STATUS = 499  # nginx's


def refuse(call: Call, error: Exception, headers: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
    """Make the answer to an exception. What is not a `RequestError` is a defect: logged here and answered blandly."""
    if isinstance(error, ClientDisconnect):
        call.code = CLIENT_CLOSED
        return Answer(_CLIENT_CLOSED_STATUS, b"")  # for the log: nobody reads it
    if not isinstance(error, RequestError):
        logger.error("the request failed", exc_info=error, extra=_names(call))
        error = Internal(_BLAND)
    elif isinstance(error, Internal):  # logged with its traceback where it happened
        logger.error("the request failed: %s", error, extra=_names(call))
        error = Internal(_BLAND)
    error.__traceback__ = None  # its frames hold the request and, some of them, the error: a cycle to be collected
    call.code = error.code
    status = STATUS[type(error)]
    content = schema.render_error(error.code, error.message, error.field, call.request_id)
    more = list(_HEADERS.get(status, ()))
    if isinstance(error, Overloaded):
        more = [(b"retry-after", b"%d" % retry_after_s(error.wait_s))]
    if call.reading and isinstance(error, DeadlineExceeded | RequestTimeout):
        more.append((b"connection", b"close"))  # the rest of the body may come at any time
    return Answer(status, content, [*headers, *more])


def _names(call: Call) -> dict[str, Fields]:
    return fields(request_id=call.request_id, trace_id=call.trace_id)


async def translate(request: Request, error: Exception) -> Response:
    """Answer what the router and its routes raise, as `Edge` does for what it calls itself."""
    if not isinstance(error, HTTPException) or error.status_code not in _ROUTING:
        return refuse(request.scope[CALL], error)
    refused = _ROUTING[error.status_code]
    known = [(b"allow", ", ".join(_allowed(request)).encode())] if isinstance(refused, errors.MethodNotAllowed) else []
    return refuse(request.scope[CALL], refused, known)


def _allowed(request: Request) -> list[str]:
    """The methods that a path has: the router's own answer names those of one route only."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    return [name for name, scope in scopes.items() if any(each.matches(scope)[0] is Match.FULL for each in routes)]
