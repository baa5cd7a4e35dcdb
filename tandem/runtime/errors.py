"""What can go wrong between a controller and the API server, as types that a caller can act on.

Whatever the server or a proxy before it answers becomes one of these: a body that is no JSON (a load balancer's HTML
page) is an error like any other and no crash, and a connection that breaks is `Unavailable`, never an exception of the
transport. An elector that let the transport's exceptions through left its work running without a lease: that is the bug
of both official Python clients which this module exists to rule out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

TEXT_LIMIT: Final = 500
"""Characters of a body that is not a Status which a message quotes."""


class ApiError(Exception):
    """The API server refused a request or could not be reached.

    Attributes:
        status: the HTTP status code; 0 when there was no answer.
        reason: the machine-readable reason of the Status object (`Conflict`, `Expired`, ...); empty without one.
        retry_after: seconds that the server asked to wait (the header Retry-After), None when it did not ask.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class BadRequest(ApiError):  # noqa: N818 - the names are those of the API's own reasons
    """400, 405, 406, 415: the request makes no sense to this server; asking again will not help."""


class Unauthorized(ApiError):  # noqa: N818
    """401: the credentials are not accepted (an expired token is read anew before the next request)."""


class Forbidden(ApiError):  # noqa: N818
    """403: RBAC or admission says no."""


class NotFound(ApiError):  # noqa: N818
    """404: no such object, or no such resource on this server."""


class Conflict(ApiError):  # noqa: N818
    """409: the object has changed since it was read, or another field manager owns a field."""


class AlreadyExists(Conflict):
    """409 with the reason AlreadyExists: an object of that name is there."""


class Gone(ApiError):  # noqa: N818
    """410: the resourceVersion or continue token is older than what the server keeps; list anew."""


class Invalid(ApiError):  # noqa: N818
    """422: the object breaks its schema or a validation rule."""


class TooManyRequests(ApiError):  # noqa: N818
    """429: priority and fairness refused the request; `retry_after` says for how long."""


class ServerError(ApiError):
    """Any other 5xx: the server tried and failed. Whether a write happened is not known."""


class Unavailable(ServerError):  # noqa: N818
    """No answer at all, a proxy's 502, 503, 504, or a redirection. Whether a write happened is not known."""


_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: BadRequest,
    406: BadRequest,
    409: Conflict,
    410: Gone,
    415: BadRequest,
    422: Invalid,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_BY_REASON: Final[Mapping[str, type[ApiError]]] = {
    "AlreadyExists": AlreadyExists,
    "Expired": Gone,
    "Gone": Gone,
    "Timeout": Unavailable,
    "ServerTimeout": Unavailable,
}


def from_status(what: str, status: Any, *, code: int = 0, retry_after: float | None = None) -> ApiError:
    """The error that a Status object describes (an answer's body, or the object of a watch's ERROR event).

    Args:
        what: the request, for the message: `GET /api/v1/pods`.
        status: the parsed body, of any shape.
        code: the HTTP status; 0 takes the one that the Status names.
        retry_after: seconds, from the header.
    """
    fields: Mapping[str, Any] = status if isinstance(status, dict) else {}
    stated = fields.get("code")
    code = code or (stated if isinstance(stated, int) else 0)
    reason = str(fields.get("reason") or "")
    text = str(fields.get("message") or (status if isinstance(status, str) else "") or "no message")[:TEXT_LIMIT]
    if retry_after is None and isinstance(details := fields.get("details"), dict):
        seconds = details.get("retryAfterSeconds")
        retry_after = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(code) or _by_class(code)
    return kind(f"{what}: {code} {text}".strip(), status=code, reason=reason, retry_after=retry_after)


def from_response(what: str, code: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """The error of an HTTP answer above 299; the body may be anything."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = " ".join(body.decode("utf-8", "replace").split())
    return from_status(what, status, code=code, retry_after=_seconds(headers.get("Retry-After")))


def _by_class(code: int) -> type[ApiError]:
    if not code or code >= 500:
        return ServerError
    return BadRequest if code >= 400 else Unavailable  # a redirection: whoever that is, it is not the API server


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; the API server sends a number, an HTTP date (a proxy's) is not waited for."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
