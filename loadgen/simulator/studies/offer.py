"""What is asked of a simulated cluster, at any rate."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from loadgen.outcomes.outcome import Shot
from loadgen.runs.trial import at_rate
from loadgen.workload.arrivals import Burst
from loadgen.workload.trace import Arrival
from loadgen.workload.workload import Workload, duration, schedule
from shared.errors import InvalidRequest

MOST_REQUESTS: Final = 200_000
"""Of one run."""


def offered(workload: Workload, rate: float, seconds: float) -> tuple[Shot, ...]:
    """Requests like `workload`'s, `rate` a second for about so long: its arrivals with another
    rate, or its trace again and again, with gaps that are longer or shorter. Raises
    `InvalidRequest` for arrivals without a single rate."""
    if rate * seconds > MOST_REQUESTS:
        allowed = f"at most {MOST_REQUESTS} requests in a run"
        raise InvalidRequest("rate", f"{rate:g} for {seconds:g} s", allowed)
    lasting = msgspec.structs.replace(workload, seconds=seconds)
    if workload.trace is None:
        return schedule(at_rate(lasting, rate, workload.seed))
    trace = repeated(workload.trace, rate, seconds)
    return schedule(msgspec.structs.replace(lasting, trace=trace))


def repeated(trace: Sequence[Arrival], rate: float, seconds: float) -> tuple[Arrival, ...]:
    """`trace` from its beginning again as often as it takes, so fast that `rate` requests come in a
    second in the mean; what comes within `seconds`."""
    if len(trace) < 2 or duration(Workload(trace=tuple(trace))) <= 0.0:
        raise InvalidRequest("trace", f"{len(trace)} requests", "several, at different times")
    ordered = sorted(trace, key=lambda arrival: arrival.at)
    last = ordered[-1].at
    lasts = last * len(ordered) / (len(ordered) - 1)  # the gap before it begins again too
    faster = rate * lasts / len(ordered)
    found = []
    for number in range(math.ceil(seconds * faster / lasts)):
        for arrival in ordered:
            at = (number * lasts + arrival.at) / faster
            if at < seconds:
                found.append(msgspec.structs.replace(arrival, at=at))
    return tuple(found)


def burst(workload: Workload, rate: float, factor: float, at: float, lasting: float) -> Workload:
    """`workload`'s mix at `rate`, and `factor` times as much for `lasting` seconds from `at` on."""
    arrivals = Burst(rate=rate, factor=factor, at=at, seconds=lasting)
    seconds = at + 2 * lasting
    return msgspec.structs.replace(workload, arrivals=arrivals, seconds=seconds, trace=None)
