"""What every rendering says in the same words. Pure."""

from collections.abc import Mapping
from typing import Final

from loadgen.outcomes.lacks import REASONS
from loadgen.report.statistics.model import Group, Report
from loadgen.report.statistics.slo import TimesSolo
from loadgen.report.statistics.units import (
    NOTHING,
    attainment_text,
    bytes_text,
    number_text,
    seconds_text,
)

LATE_SECONDS: Final = 0.05
"""A 99th percentile of lateness above this says that the generator could not keep up."""
MOST_ROWS: Final = 20
"""Groups listed in a table; the report itself has all of them."""


def results(report: Report) -> list[tuple[str, str]]:
    """Name and value of what the run was made for."""
    overall = report.overall
    return [
        (
            "throughput",
            f"{number_text(overall.images_per_second)} images/s, "
            f"{number_text(overall.requests_per_second)} requests/s",
        ),
        (
            "goodput",
            f"{number_text(overall.goodput_images_per_second)} images/s, "
            f"{number_text(overall.goodput_requests_per_second)} requests/s",
        ),
        (str(report.slo), attainment_text(overall.attainment)),
    ]


def circumstances(report: Report) -> list[tuple[str, str]]:
    """Name and value of what was run, and of how it went."""
    overall = report.overall
    return [
        *report.about.items(),
        ("window", _window(report)),
        ("offered", f"{number_text(report.offered_per_second)} requests/s"),
        ("requests", f"{overall.requests}: {overall.done} done, {overall.failed} not"),
        ("images", f"{overall.images}, {bytes_text(overall.bytes)}"),
        *_solo(report),
        *_sent(report),
        *_seen(report),
    ]


def _window(report: Report) -> str:
    drain = f" and {seconds_text(report.drain_seconds)} until the last ended"
    return seconds_text(report.seconds) + (drain if report.drain_seconds > 0 else "")


def _solo(report: Report) -> list[tuple[str, str]]:
    if not isinstance(report.slo, TimesSolo):
        return []
    alone = (f"{name} {seconds_text(value)}" for name, value in report.slo.solo.items())
    return [("solo latency", ", ".join(alone) or NOTHING)]


def _sent(report: Report) -> list[tuple[str, str]]:
    late = report.lateness
    if late is None:
        return []
    return [("sent late by", f"p99 {seconds_text(late.p99)}, max {seconds_text(late.max)}")]


def _seen(report: Report) -> list[tuple[str, str]]:
    seen = report.occupancy
    lines = []
    if seen.points:
        lines.append(("most in flight", str(seen.peak_in_flight)))
    if seen.peak_queue_depth is not None:
        lines.append(("longest queue", str(seen.peak_queue_depth)))
    if seen.mean_rows_per_step is not None:
        lines.append(("rows per step", f"{number_text(seen.mean_rows_per_step)} in the mean"))
    return lines


def warnings(report: Report) -> list[str]:
    """What makes the numbers worth less than they seem."""
    found = []
    if report.lateness is not None and report.lateness.p99 > LATE_SECONDS:
        found.append(
            f"1% of the requests were sent {seconds_text(report.lateness.p99)} late or more: the "
            "load generator could not keep up, and its delay is part of the latencies"
        )
    found += [
        f"{failure.count} requests were not sent, and do not count: {REASONS[failure.failure]}"
        for failure in report.failures
        if failure.status == "lost" and failure.failure in REASONS
    ]
    if report.overall.requests and not report.overall.done:
        found.append("no request was done: there are no latencies")
    return found


def listed(groups: Mapping[str, Group]) -> tuple[list[tuple[str, Group]], int]:
    """The groups with most requests, by name, and how many others there are."""
    largest = sorted(groups.items(), key=lambda item: (-item[1].requests, item[0]))[:MOST_ROWS]
    return sorted(largest), len(groups) - len(largest)


def groupings(report: Report) -> list[tuple[str, Mapping[str, Group]]]:
    """Title and groups of each way to split the run."""
    every: list[tuple[str, Mapping[str, Group]]] = [
        ("class", report.by_class),
        ("tenant", report.by_tenant),
        ("template", report.by_template),
    ]
    return [(title, groups) for title, groups in every if groups]
