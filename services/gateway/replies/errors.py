"""The one place where an error becomes an HTTP status and a body in OpenAI's shape."""

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import msgspec

from services.gateway.openai.refusals import UnknownField
from services.gateway.openai.schemas import ErrorBody, ErrorDetail
from services.gateway.openai.to_job import in_http_terms
from shared import errors

_NO_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients repeat 409 and 5xx by themselves unless told that it is of no use."""
CONTROL_SECONDS: Final = 10.0
"""In which a ControlNet that was gone may be back."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer to a request that cannot be served."""

    status: int
    detail: ErrorDetail
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(ErrorBody(error=self.detail))


def problem_of(error: Exception) -> Problem:
    """Nothing that is not ours is told to users in detail; the log has it."""
    match error:
        case errors.InvalidRequest():
            return _invalid(in_http_terms(error))
        case errors.AdapterUnusable():
            kind = "invalid_request_error"
            return _problem(400, kind, error.code, error.message, _NO_RETRY, param="loras")
        case errors.Unauthorized():
            headers = {"WWW-Authenticate": "Bearer"}
            return _problem(401, "invalid_request_error", error.code, error.message, headers)
        case errors.Forbidden():
            kind = "invalid_request_error"
            return _problem(403, kind, error.code, error.message, param=str(error.fields["field"]))
        case errors.JobNotFound():
            return _problem(404, "invalid_request_error", error.code, error.message)
        case errors.QueueFull():
            headers = retry_after(float(error.fields.get("retry_after") or 1.0))
            return _problem(429, "rate_limit_error", error.code, error.message, headers)
        case errors.DeadlineUnreachable():
            headers = retry_after(float(error.fields.get("retry_after") or 1.0))
            detail = ErrorDetail(
                message=error.message,
                type="rate_limit_error",
                param=None,
                code=error.code,
                predicted_seconds=float(error.fields.get("seconds") or 0.0),
            )
            return Problem(429, detail, headers | _NO_RETRY)
        case errors.PayloadTooLarge():
            return _problem(413, "invalid_request_error", error.code, error.message)
        case errors.DeadlineExceeded():
            return _problem(504, "timeout_error", error.code, error.message, _NO_RETRY)
        case errors.JobCancelled():
            return _problem(409, "cancelled_error", error.code, error.message, _NO_RETRY)
        case errors.JobFailed():
            return _failed(error)
        case errors.BusUnavailable():
            return _problem(503, "server_error", error.code, error.message, retry_after(1.0))
        case _:
            return _problem(500, "server_error", "internal_error", "an internal error; see the log")


def http_problem(status: int, message: str, code: str, param: str | None = None) -> Problem:
    """For what HTTP itself refuses: no such route, a wrong method, a body that is too large."""
    return _problem(status, "invalid_request_error", code, message, param=param)


def retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def _invalid(error: errors.InvalidRequest) -> Problem:
    param = str(error.fields["field"])
    code = "model_not_found" if param == "model" else "invalid_value"
    if isinstance(error, UnknownField):
        code = "unknown_parameter"
    return _problem(
        HTTPStatus.BAD_REQUEST,
        "invalid_request_error",
        code,
        error.message,
        param=None if param == "body" else param,
    )


def _failed(error: errors.JobFailed) -> Problem:
    code = str(error.fields["failure_code"])
    if code == "result_missing":
        return _problem(404, "invalid_request_error", code, error.message)
    if code == errors.ModelRemoved.code:
        return _problem(404, "invalid_request_error", code, error.message, _NO_RETRY, "model")
    if code == errors.ControlUnavailable.code:
        return _problem(503, "server_error", code, error.message, retry_after(CONTROL_SECONDS))
    if code == errors.NotServed.code:
        return _problem(503, "server_error", code, error.message, _NO_RETRY)
    return _problem(500, "server_error", code, error.message, _NO_RETRY)


def _problem(
    status: int,
    kind: str,
    code: str,
    message: str,
    headers: dict[str, str] | None = None,
    param: str | None = None,
) -> Problem:
    detail = ErrorDetail(message=message, type=kind, param=param, code=code)
    return Problem(int(status), detail, headers or {})
