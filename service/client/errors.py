"""What a call can end with instead of an answer: an exception for each code of the server, and the client's own."""

from typing import ClassVar

from service.errors import DinserveError


class ClientError(DinserveError):
    """Root of what a client raises."""


class Unreachable(ClientError):
    """No connection, or one that ended before the answer; the message names the server."""


class TimedOut(ClientError):
    """The call's time ran out; what earlier attempts ended with is in the message."""


class UnexpectedAnswer(ClientError):
    """What answered is no dinserve, such as a proxy, or one that speaks another language.

    Args:
        message: one sentence.
        status: of the HTTP answer.
        retry_after_s: what its `Retry-After` says, if anything.
    """

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Refused(ClientError):
    """The server said no. Raised itself only for a code that this client is too old to know.

    Args:
        code: stable; what programs should look at.
        message: one sentence for people.
        field: path of the offending field, such as `candidates.ids[3]`, or None.
        request_id: what the server's log calls the request.
        status: of the HTTP answer.
        retry_after_s: when to try again, if the server said so.
    """

    known: ClassVar[str] = ""  # the code of a subclass

    def __init__(
        self,
        code: str,
        message: str,
        field: str | None = None,
        request_id: str = "",
        status: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {f'{field}: ' if field else ''}{message}")
        self.code = code
        self.message = message
        self.field = field
        self.request_id = request_id
        self.status = status
        self.retry_after_s = retry_after_s


class MalformedJson(Refused):
    """The body was not JSON."""

    known = "malformed_json"


class MalformedHttp(Refused):
    """The bytes were no HTTP request."""

    known = "malformed_http"


class HeadersTooLarge(Refused):
    """The headers were longer than the server's limit."""

    known = "headers_too_large"


class RequestTimeout(Refused):
    """The request took too long to arrive."""

    known = "request_timeout"


class UnsupportedMediaType(Refused):
    """The Content-Type was not JSON's."""

    known = "unsupported_media_type"


class BodyTooLarge(Refused):
    """The body was longer than the server's limit."""

    known = "body_too_large"


class InvalidRequest(Refused):
    """The request was of the wrong shape, type or range; `field` names the place."""

    known = "invalid_request"


class NotFound(Refused):
    """The server has no such path."""

    known = "not_found"


class MethodNotAllowed(Refused):
    """The path has other methods."""

    known = "method_not_allowed"


class UnknownVersion(Refused):
    """The server has no such version."""

    known = "unknown_version"


class VersionRefused(Refused):
    """The version failed its checks."""

    known = "version_refused"


class Unauthorized(Refused):
    """The token was missing or wrong."""

    known = "unauthorized"


class Overloaded(Refused):
    """The server would have been too late, and said so at once."""

    known = "overloaded"


class NotReady(Refused):
    """The server is loading, draining, or has no healthy version."""

    known = "not_ready"


class DeadlineExceeded(Refused, TimedOut):
    """The call's time ran out in the server, which said so first."""

    known = "deadline_exceeded"


class Internal(Refused):
    """A defect of the server; its log has the details under `request_id`."""

    known = "internal"


REFUSALS: dict[str, type[Refused]] = {each.known: each for each in Refused.__subclasses__()}
