"""The report as data: what `--json` writes and every rendering reads. Times are in seconds, rates
per second, shares between 0 and 1. Fields are added, never renamed; `version` counts the rest."""

from typing import Final

import msgspec

from loadgen.report.statistics.slo import Slo

VERSION: Final = 1


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of the requests that were done, from their *intended* send to their end. Those that were
    not done are no part of it: look at `attainment` and `failures` too."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class Attainment(msgspec.Struct, frozen=True, kw_only=True):
    """`met` of the `of` requests that had a deadline were done within it; what failed, was refused
    or lost did not meet it. `low` and `high`: the 95% Wilson interval of `share`."""

    met: int
    of: int
    share: float
    low: float
    high: float


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a run's requests. Rates count what ended inside the window; `goodput_*` of that only
    what met its deadline, or had none. Without any deadline goodput equals throughput."""

    requests: int
    done: int
    failed: int
    """Everything that was not done: failed, rejected, lost, timed out."""
    images: int
    bytes: int
    requests_per_second: float
    images_per_second: float
    goodput_requests_per_second: float
    goodput_images_per_second: float
    latency: Latency | None
    """None if nothing was done."""
    attainment: Attainment | None
    """None if no request had a deadline."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """`count` requests ended as `status`, for the reason `failure`."""

    status: str
    failure: str
    count: int


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How long after the intended time requests were really sent. It is part of every latency, so
    a large one means that the generator was measured, and not the server."""

    p50: float
    p99: float
    max: float


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """`count` requests took `low` seconds or more and less than `high`; no upper limit if None."""

    low: float
    high: float | None
    count: int


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """`percentile` percent of the requests took `seconds` or less."""

    percentile: float
    seconds: float


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """From `at` for the timeline's `width`. Sends count when they were intended, all else when it
    ended. The times are those of the requests done in the interval, None if there was none."""

    at: float
    intended: int
    done: int
    good: int
    """Of those done, the ones that met their deadline or had none."""
    failed: int
    images: int
    p50: float | None
    p95: float | None
    max: float | None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    width: float
    intervals: list[Interval]


class OccupancyPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The server at `at`; None where it does not say. `rows_per_step` is a mean since the last."""

    at: float
    queue_depth: float | None
    in_flight: float
    rows_per_step: float | None


class Occupancy(msgspec.Struct, frozen=True, kw_only=True):
    """`mean_rows_per_step` is over the samples in which a step was made."""

    peak_queue_depth: int | None
    peak_in_flight: int
    mean_rows_per_step: float | None
    points: list[OccupancyPoint]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    about: dict[str, str]
    """What was run, in words: target, workload, seed and the like."""
    seconds: float
    """The window: what ended later counts in latencies and attainment, not in rates."""
    drain_seconds: float
    """From the window's end until the last request ended."""
    slo: Slo
    offered_per_second: float
    """Requests that were to be sent, per second of the window."""
    overall: Group
    by_class: dict[str, Group]
    by_tenant: dict[str, Group]
    by_template: dict[str, Group]
    failures: list[Failure]
    """Most frequent first."""
    lateness: Lateness | None
    """None without requests."""
    curve: list[CurvePoint]
    curve_by_class: dict[str, list[CurvePoint]]
    bins: list[Bin]
    timeline: Timeline
    occupancy: Occupancy
