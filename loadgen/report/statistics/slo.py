"""Which deadline a request has: what "in time" means for a run."""

import math

import msgspec

from loadgen.outcomes.outcome import Shot
from shared.errors import InvalidRequest

ALLOWED = "seconds above 0 such as 1.5, a multiple of the solo latency such as 2x, or none"


class Absolute(msgspec.Struct, frozen=True, tag="absolute"):
    """Every request has `seconds`."""

    seconds: float

    def __str__(self) -> str:
        return f"within {self.seconds:g} s"


class TimesSolo(msgspec.Struct, frozen=True, tag="times_solo"):
    """A request has `factor` times what one of its template takes alone, in seconds by template."""

    factor: float
    solo: dict[str, float] = {}

    def __str__(self) -> str:
        return f"within {self.factor:g}x the solo latency"


class OwnDeadlines(msgspec.Struct, frozen=True, tag="own_deadlines"):
    """A request has the deadline that it carries, if it carries one."""

    def __str__(self) -> str:
        return "within each request's own deadline"


Slo = Absolute | TimesSolo | OwnDeadlines


def parse_slo(text: str) -> Slo:
    """`1.5` (seconds), `2x` (times the solo latency, which is still to be measured) or `none`.

    Raises `InvalidRequest` naming `slo`."""
    if text == "none":
        return OwnDeadlines()
    try:
        number = float(text.removesuffix("x"))
    except ValueError:
        raise InvalidRequest("slo", text, ALLOWED) from None
    if not (math.isfinite(number) and number > 0):
        raise InvalidRequest("slo", text, ALLOWED)
    return TimesSolo(number) if text.endswith("x") else Absolute(number)


def deadline_of(slo: Slo, shot: Shot) -> float | None:
    """Seconds from the intended send; None if the request has no deadline.

    Raises `InvalidRequest` for a template whose solo latency is not known."""
    match slo:
        case Absolute(seconds):
            return seconds
        case TimesSolo(factor, solo):
            if shot.template not in solo:
                known = ", ".join(sorted(solo)) or "none was measured"
                raise InvalidRequest("template", shot.template, f"with a solo latency: {known}")
            return factor * solo[shot.template]
        case OwnDeadlines():
            return shot.request.deadline
