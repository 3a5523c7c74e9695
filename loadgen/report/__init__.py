"""What a run of the load generator says: numbers, a terminal table, a page with plots.

report = summarise(outcomes, samples, slo, seconds)
msgspec.json.encode(report); console.print(render_table(report)); render_html(report)
"""

from loadgen.report.html import render_html
from loadgen.report.model import Attainment, Failure, Group, Latency, Report
from loadgen.report.slo import Absolute, OwnDeadlines, Slo, TimesSolo, deadline_of, parse_slo
from loadgen.report.summary import summarise
from loadgen.report.table import render_table
from loadgen.report.wilson import wilson

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
