"""Every failure this project names, each with its stable code.

A request meets them in this order: the body is read (`MalformedJson`, `UnsupportedMediaType`, `BodyTooLarge`), checked
(`InvalidRequest`), admitted (`Unauthorized`, `NotReady`, `Overloaded`), run before its deadline (`DeadlineExceeded`)
and answered; whatever else happens is a defect (`Internal`). Files fail with `ArtifactError` (a version) or `DataError`
(training data), settings with `SettingsError`.
"""

from typing import ClassVar


class DinserveError(Exception):
    """Root of the tree. `str(error)` is a message that may be shown to the caller."""


class RequestError(DinserveError):
    """A request that gets an answer other than probabilities.

    Args:
        message: one sentence for the caller; never contains the caller's own values.
        field: path of the offending field, such as `candidates.ids[3]`, or None.
    """

    code: ClassVar[str]

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class MalformedJson(RequestError):
    """The body is not JSON."""

    code = "malformed_json"


class MalformedHttp(RequestError):
    """The bytes are not an HTTP request."""

    code = "malformed_http"


class HeadersTooLarge(RequestError):
    """The request line and headers are longer than the limit."""

    code = "headers_too_large"


class RequestTimeout(RequestError):
    """The headers or the body took too long to arrive."""

    code = "request_timeout"


class UnsupportedMediaType(RequestError):
    """The Content-Type is not application/json."""

    code = "unsupported_media_type"


class BodyTooLarge(RequestError):
    """The body is longer than the limit."""

    code = "body_too_large"


class InvalidRequest(RequestError):
    """JSON of the wrong shape, type or range; `field` names the place."""

    code = "invalid_request"


class NotFound(RequestError):
    """No such path."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class UnknownVersion(RequestError):
    """The model folder holds no such version."""

    code = "unknown_version"


class VersionRefused(RequestError):
    """The version failed its checks, so it does not serve; the message has the reason."""

    code = "version_refused"


class Unauthorized(RequestError):
    """A token is configured, and missing or wrong in the request."""

    code = "unauthorized"


class Overloaded(RequestError):
    """More is asked than can be answered in time; refused at once so that the caller can go elsewhere.

    Args:
        message: as of every `RequestError`.
        reason: what a metric calls it: `queue`, `deadline` or `standing`.
        wait_s: how long the request would have waited.
    """

    code = "overloaded"

    def __init__(self, message: str, reason: str, wait_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.wait_s = wait_s


class NotReady(RequestError):
    """Loading, draining, or without a healthy version."""

    code = "not_ready"


class DeadlineExceeded(RequestError):
    """The request's time ran out."""

    code = "deadline_exceeded"


class Internal(RequestError):
    """A defect on this side; the log has the traceback under the request id."""

    code = "internal"


class SettingsError(DinserveError):
    """A setting that stops start-up; the message names it and its value."""


class ArtifactError(DinserveError):
    """A version on disk that cannot be served; the message names the file and the reason."""


class DataError(DinserveError):
    """Training data that cannot be used; the message names file, line and column where there is one."""
