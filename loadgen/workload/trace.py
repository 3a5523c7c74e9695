"""Traces of requests that really came: lines of `tenant gap_seconds`, or JSON lines.

A gap counts from the line before, whoever that was of and in whichever form; the first one from the
start. A JSON line has `time` (seconds from the start) and any of the fields of `TraceLine`; what it
leaves open is taken from the workload's mix. Empty lines and lines that begin with # are skipped.

A line ends at a line feed, before which a carriage return may stand, and at nothing else: JSON may
hold any other character that some call a line's end.
"""

import math
import re
import string
from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from loadgen.outcomes.outcome import Positive, RequestTemplate
from loadgen.workload.strict import refuse
from shared import service_classes
from shared.errors import InvalidRequest
from shared.service_classes import ServiceClass

MAX_LINES: Final = 1_000_000
"""Of one trace: a schedule is held in memory."""
MAX_GAP: Final = 1_000_000.0
BYTE_ORDER_MARK: Final = "\ufeff"
"""Some editors begin a file with it; joined files have it inside."""


class Arrival(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request of a trace. `changes`: the fields of `RequestTemplate` that it sets."""

    at: float
    tenant: str
    changes: dict[str, Any] = {}


class TraceLine(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """One JSON line."""

    time: Annotated[float, Meta(ge=0, le=MAX_GAP)]
    tenant: Annotated[str, Meta(min_length=1)] = "default"
    model: str | None = None
    prompt: Annotated[str, Meta(min_length=1)] | None = None
    size: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")] | None = None
    steps: Positive | None = None
    guidance: Annotated[float, Meta(ge=0)] | None = None
    seed: Annotated[int, Meta(ge=0)] | None = None
    n: Positive | None = None
    service_class: ServiceClass | None = None
    deadline: Annotated[float, Meta(gt=0)] | None = None
    mask_ratio: Annotated[float, Meta(gt=0, le=1)] | None = None
    controls: tuple[str, ...] | None = None
    loras: tuple[str, ...] | None = None


ALLOWED: Final = {
    "time": f"seconds from the start, 0 to {MAX_GAP:.0f}",
    "tenant": "text that is not empty",
    "model": "a model's name",
    "prompt": "text that is not empty",
    "size": "WIDTHxHEIGHT in pixels, such as 512x512",
    "steps": "a whole number from 1",
    "guidance": "a number from 0",
    "seed": "a whole number from 0",
    "n": "a whole number from 1",
    "service_class": service_classes.ALLOWED,
    "deadline": "seconds, more than 0",
    "mask_ratio": "a number over 0, at most 1",
    "controls": "a list of NAME=FILE or NAME=FILE:SCALE",
    "loras": "a list of names",
}

_DECODER: Final = msgspec.json.Decoder(TraceLine)


def parse_trace(lines: Iterable[str]) -> tuple[Arrival, ...]:
    """Raises `InvalidRequest` naming the line, the field, its value and what is allowed."""
    found: list[Arrival] = []
    now = 0.0
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(BYTE_ORDER_MARK).strip(string.whitespace)
        if not text or text.startswith("#"):
            continue
        if len(found) == MAX_LINES:
            raise InvalidRequest(f"line {number}", text, f"at most {MAX_LINES} requests")
        if text.startswith("{"):
            found.append(_json_line(number, text))
            now = found[-1].at
            continue
        tenant, gap = _gap_line(number, text)
        now += gap
        found.append(Arrival(at=now, tenant=tenant))
    if not found:
        raise InvalidRequest("trace", "no request", "at least one line with a request")
    return tuple(found)


def _gap_line(number: int, text: str) -> tuple[str, float]:
    words = re.split(r"[\s,]+", text, flags=re.ASCII)
    if len(words) != 2:
        raise InvalidRequest(f"line {number}", text, "`tenant gap_seconds`, or one JSON object")
    try:
        gap = float(words[1])
    except ValueError:
        gap = math.nan
    if not 0 <= gap <= MAX_GAP:  # also refuses NaN
        raise InvalidRequest(
            f"line {number}, gap_seconds", words[1], f"a number from 0 to {MAX_GAP:.0f}"
        )
    return words[0], gap


def _json_line(number: int, text: str) -> Arrival:
    try:
        line = _DECODER.decode(text)
    except msgspec.DecodeError as error:
        raise refuse(f"line {number}", text.encode(), error, ALLOWED) from error
    fields = msgspec.structs.asdict(line)
    changes = {
        name: fields[name]
        for name in RequestTemplate.__struct_fields__
        if fields.get(name) is not None
    }
    if line.size is not None:
        width, height = line.size.split("x")
        changes |= {"width": int(width), "height": int(height)}
    return Arrival(at=line.time, tenant=line.tenant, changes=changes)
