"""What a run of the load generator says: numbers, a terminal table, a page with plots.

report = summarise(outcomes, samples, slo, seconds)
msgspec.json.encode(report); console.print(render_table(report)); render_html(report)
"""

from loadgen.report.page.html import render_html
from loadgen.report.page.table import render_table
from loadgen.report.statistics.model import Attainment, Failure, Group, Latency, Report
from loadgen.report.statistics.slo import (
    Absolute,
    OwnDeadlines,
    Slo,
    TimesSolo,
    deadline_of,
    parse_slo,
)
from loadgen.report.statistics.summary import summarise
from loadgen.report.statistics.wilson import wilson

__all__ = [
    "Absolute",
    "Attainment",
    "Failure",
    "Group",
    "Latency",
    "OwnDeadlines",
    "Report",
    "Slo",
    "TimesSolo",
    "deadline_of",
    "parse_slo",
    "render_html",
    "render_table",
    "summarise",
    "wilson",
]
