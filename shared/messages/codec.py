"""Messages as bytes, and back: each type has one decoder, and what does not fit it is named."""

from typing import TypeVar

import msgspec

from shared.errors import DarkroomError, InvalidRequest
from shared.messages.load import LoadReport, PromiseReport
from shared.messages.results import Failure, JobEvent, Outcome
from shared.messages.work import ReleaseJob, ReleaseTensor

_ENCODER = msgspec.msgpack.Encoder()
_TYPES: dict[object, "msgspec.msgpack.Decoder[object]"] = {}
T = TypeVar("T")


def encode(message: object) -> bytes:
    return _ENCODER.encode(message)


def decode(data: bytes, wanted: type[T]) -> T:
    """`data` as a `wanted` (a struct). Raises `InvalidRequest` naming the offending field."""
    return _decode(data, wanted)  # type: ignore[return-value]


def decode_event(data: bytes) -> JobEvent:
    return _decode(data, JobEvent)  # type: ignore[return-value]


def decode_load(data: bytes) -> LoadReport | PromiseReport:
    return _decode(data, LoadReport | PromiseReport)  # type: ignore[return-value]


def decode_release(data: bytes) -> ReleaseJob | ReleaseTensor:
    return _decode(data, ReleaseJob | ReleaseTensor)  # type: ignore[return-value]


def decode_outcome(data: bytes) -> Outcome:
    return _decode(data, Outcome)  # type: ignore[return-value]


def _decode(data: bytes, wanted: object) -> object:
    decoder = _TYPES.get(wanted)
    if decoder is None:
        decoder = _TYPES[wanted] = msgspec.msgpack.Decoder(wanted)
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise _as_invalid(error) from error


def _as_invalid(error: Exception) -> InvalidRequest:
    text = str(error)
    reason, _, path = text.partition(" - at `$")
    name = path.rstrip("`").lstrip(".") or "message"
    if "unknown field" in reason or "required field" in reason:
        name = reason.split("`")[1] if "`" in reason else name
    return InvalidRequest(name, reason, "a message as docs/nats.md describes it")


def failure_of(error: BaseException) -> Failure:
    """`error` for the wire; anything that is not ours becomes an `internal_error`."""
    if isinstance(error, DarkroomError):
        fields = {
            name: value if isinstance(value, str | int | float) or value is None else str(value)
            for name, value in error.fields.items()
        }
        return Failure(
            code=error.code, message=error.message, retryable=error.retryable, fields=fields
        )
    return Failure(
        code=DarkroomError.code,
        message=f"{type(error).__name__}: {error}",
        retryable=True,
        fields={},
    )
