"""Logs: the standard library's, as JSON lines for machines or as text at a terminal.

Every line says which service wrote it, and carries what `bind` bound (job, node) and the trace id.
`DARKROOM_LOG_FORMAT=json|text` overrides the choice, which is text only when stderr is a terminal.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

from opentelemetry import trace

from shared.errors import Misconfigured

Value = str | int | float

_BOUND: ContextVar[Mapping[str, Value]] = ContextVar("darkroom_log_fields")
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",  # from Python 3.12 on
}


@contextmanager
def bind(**fields: Value) -> Iterator[None]:
    """Add `fields` to every line logged inside, also by tasks and `to_thread` calls started there.

    Inner values replace outer ones of the same name. Open and close it in one task."""
    token = _BOUND.set({**bound(), **fields})
    try:
        yield
    finally:
        _BOUND.reset(token)


def bound() -> Mapping[str, Value]:
    """The fields bound here."""
    return _BOUND.get({})


def setup_logging(service: str, level: str = "INFO") -> None:
    """Log to stderr at `level` and above; a second call replaces the first.

    Raises `Misconfigured` for an unknown level or `DARKROOM_LOG_FORMAT`."""
    if level.upper() not in logging.getLevelNamesMapping():
        known = ", ".join(logging.getLevelNamesMapping())
        raise Misconfigured(f"log level {level!r} is unknown; set one of {known}")
    handler = _StderrHandler()
    handler.setFormatter(_formatter(service))
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if isinstance(h, _StderrHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())


def _formatter(service: str) -> logging.Formatter:
    wanted = os.environ.get("DARKROOM_LOG_FORMAT") or ("text" if sys.stderr.isatty() else "json")
    match wanted:
        case "json":
            return JsonFormatter(service)
        case "text":
            return TextFormatter(service)
        case _:
            raise Misconfigured(f"DARKROOM_LOG_FORMAT is {wanted!r}; set json or text")


class _StderrHandler(logging.Handler):
    """Writes each line in one call, so that lines of processes that share a pipe stay whole."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, service, logger, message, then all other fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        others = {name: value for name, value in _fields(record).items() if name not in line}
        return json.dumps(line | others, default=str)


class TextFormatter(logging.Formatter):
    """`12:34:56 INFO    vae: message [job_id=... node=...]`, then the traceback if there is one."""

    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {service}: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + (f" [{fields}]" if fields else "")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was bound, the trace id, and what the caller passed as `extra`."""
    fields: dict[str, object] = dict(bound())
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields["trace_id"] = trace.format_trace_id(context.trace_id)
    fields.update({k: v for k, v in record.__dict__.items() if k not in _STANDARD})
    return fields
