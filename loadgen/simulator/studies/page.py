"""What a comparison says: a table for the terminal, and one HTML page."""

from collections.abc import Mapping

from rich import box
from rich.console import RenderableType
from rich.table import Table

from loadgen.report.page.html import document, sections, table
from loadgen.report.page.markup import Markup, element
from loadgen.report.statistics.units import attainment_text, number_text, percent_text, seconds_text
from loadgen.simulator.studies.comparison import Comparison, Side

TITLES = (
    "",
    "found",
    "requests",
    "done",
    "in time (95% interval)",
    "p50",
    "p95",
    "done/s",
    "for nothing",
    "at work",
    "rows/step",
    "loads",
)


def render_comparison(comparison: Comparison) -> RenderableType:
    found = Table(*TITLES, box=box.SIMPLE_HEAD, header_style="bold")
    for column in found.columns[1:]:
        column.justify = "right"
    for row in _rows(comparison.systems):
        found.add_row(*row)
    return found


def comparison_page(comparison: Comparison) -> str:
    """A whole document, to be written as UTF-8."""
    parts: list[Markup] = [
        element("p", f"{comparison.profile}: figures from {comparison.source}"),
        table(TITLES, _rows(comparison.systems)),
    ]
    for name, side in comparison.systems.items():
        parts.append(element("h1", name))
        if side.report is None:
            parts.append(element("p", "Nothing that was tried was good enough.", class_="warning"))
        else:
            parts += sections(side.report)
    return document(f"Simulation: {comparison.devices} devices, {comparison.slo}", *parts)


def _rows(systems: Mapping[str, Side]) -> list[list[str]]:
    return [[name, _found(side), *_figures(side)] for name, side in systems.items()]


def _found(side: Side) -> str:
    if side.devices is not None:
        return f"{side.devices} devices"
    return "" if side.found is None else number_text(side.found.rate)


def _figures(side: Side) -> list[str]:
    report, stats = side.report, side.statistics
    if report is None or stats is None:
        return [""] * (len(TITLES) - 2)
    overall = report.overall
    times = overall.latency
    return [
        str(overall.requests),
        str(overall.done),
        attainment_text(overall.attainment),
        seconds_text(times.p50 if times else None),
        seconds_text(times.p95 if times else None),
        number_text(overall.requests_per_second),
        percent_text(stats.wasted_share + stats.late_share),
        percent_text(stats.utilisation),
        number_text(stats.rows_per_step),
        str(stats.loads),
    ]
