"""A client of dinserve, for threads (`Client`) and for asyncio (`AsyncClient`): `pip install 'dinserve[client]'`."""

try:
    import httpx2 as _httpx2  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("service.client needs httpx2: pip install 'dinserve[client]'", name="httpx2") from error

from service.client.answers import Attention, Health, LatencyMs, ModelInfo, Scores
from service.client.asynchronous import AsyncClient
from service.client.errors import (
    BodyTooLarge,
    ClientError,
    DeadlineExceeded,
    HeadersTooLarge,
    Internal,
    InvalidRequest,
    MalformedHttp,
    MalformedJson,
    MethodNotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    Refused,
    RequestTimeout,
    TimedOut,
    Unauthorized,
    UnexpectedAnswer,
    UnknownVersion,
    Unreachable,
    UnsupportedMediaType,
    VersionRefused,
)
from service.client.messages import Columns
from service.client.policy import Budget
from service.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Attention",
    "BodyTooLarge",
    "Budget",
    "Client",
    "ClientError",
    "Columns",
    "DeadlineExceeded",
    "HeadersTooLarge",
    "Health",
    "Internal",
    "InvalidRequest",
    "LatencyMs",
    "MalformedHttp",
    "MalformedJson",
    "MethodNotAllowed",
    "ModelInfo",
    "NotFound",
    "NotReady",
    "Overloaded",
    "Refused",
    "RequestTimeout",
    "Scores",
    "TimedOut",
    "Unauthorized",
    "UnexpectedAnswer",
    "UnknownVersion",
    "Unreachable",
    "UnsupportedMediaType",
    "VersionRefused",
]
