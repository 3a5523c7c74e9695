"""The report for a terminal; fits in 80 columns while names are short."""

from collections.abc import Callable, Mapping
from typing import Final

from rich import box
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from loadgen.report.page.findings import circumstances, groupings, listed, results, warnings
from loadgen.report.statistics.model import Group, Report
from loadgen.report.statistics.units import NOTHING, number_text, percent_text

NAME_WIDTH: Final = 12
Cell = Callable[[float], str]


def render_table(report: Report) -> RenderableType:
    parts: list[RenderableType] = [_facts(report), _groups(report)]
    if report.failures:
        parts.append(_failures(report))
    parts += [Text(f"! {warning}", style="bold yellow") for warning in warnings(report)]
    return Lines(*parts)


def _facts(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in [*circumstances(report), *results(report)]:
        table.add_row(Text(name, style="dim"), Text(value))
    return table


def _groups(report: Report) -> Table:
    """One table, so that the columns of all groupings stand under each other."""
    unit, cell = _unit(report.overall)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(f"times in {unit}", overflow="fold", min_width=NAME_WIDTH)
    for title in ("sent", "done", "img/s", "good/s", "p50", "p90", "p95", "p99", "max", "in time"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_row(Text("all", style="bold"), *_row(report.overall, cell))
    for title, groups in groupings(report):
        table.add_section()
        _add(table, title, groups, cell)
    return table


def _add(table: Table, title: str, groups: Mapping[str, Group], cell: Cell) -> None:
    table.add_row(Text(f"by {title}", style="dim"))
    rows, others = listed(groups)
    for name, group in rows:
        table.add_row(Text(f" {name}"), *_row(group, cell))
    if others:
        table.add_row(Text(f" and {others} more", style="dim"))


def _row(group: Group, cell: Cell) -> list[str]:
    times = group.latency
    latencies = (times.p50, times.p90, times.p95, times.p99, times.max) if times else ()
    return [
        str(group.requests),
        str(group.done),
        number_text(group.images_per_second),
        number_text(group.goodput_images_per_second),
        *(map(cell, latencies) if times else [NOTHING] * 5),
        percent_text(group.attainment.share if group.attainment else None),
    ]


def _unit(overall: Group) -> tuple[str, Cell]:
    """One unit for all rows, so that they can be compared at a glance."""
    if overall.latency is None or overall.latency.p50 >= 1.0:
        return "s", number_text
    return "ms", lambda seconds: number_text(1000 * seconds)


def _failures(report: Report) -> Table:
    table = Table("not done", "reason", "requests", box=box.SIMPLE_HEAD, header_style="bold")
    table.columns[2].justify = "right"
    for failure in report.failures:
        table.add_row(Text(failure.status), Text(failure.failure), str(failure.count))
    return table
