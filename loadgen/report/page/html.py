"""The report as one HTML page that needs nothing else: no script, no font, no image from afar."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from loadgen.report.page import plots
from loadgen.report.page.findings import circumstances, groupings, listed, warnings
from loadgen.report.page.markup import Markup, element, joined
from loadgen.report.page.style import STYLE
from loadgen.report.statistics.model import Group, Report
from loadgen.report.statistics.units import attainment_text, number_text, seconds_text

GROUP_TITLES: Final = (
    "requests",
    "done",
    "images/s",
    "goodput/s",
    "p50",
    "p90",
    "p95",
    "p99",
    "max",
    "in time (95% interval)",
)
HEAD: Final = Markup(
    '<meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


def render_html(report: Report) -> str:
    """A whole document, to be written as UTF-8."""
    title = f"Load report: {report.about.get('target', 'a run')}"
    return document(title, *sections(report))


def document(title: str, *parts: Markup) -> str:
    """`parts` below a title, and what all reports have to say of their numbers."""
    head = element("head", HEAD, element("title", title), element("style", STYLE))
    body = element("body", element("h1", title), *parts, _footer())
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def sections(report: Report) -> tuple[Markup, ...]:
    """All that is said of one run."""
    return (
        *(element("p", warning, class_="warning") for warning in warnings(report)),
        _tiles(report),
        _facts(report),
        *_latencies(report),
        *_over_time(report),
        *_tables(report),
    )


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """The first column names the rows."""
    return _table(titles, [element("tbody", *map(_row, rows))])


def _tiles(report: Report) -> Markup:
    overall = report.overall
    times, attained = overall.latency, overall.attainment
    tiles = [
        ("images/s", number_text(overall.images_per_second)),
        ("images/s in time", number_text(overall.goodput_images_per_second)),
        (f"{report.slo} (95% interval)", attainment_text(attained)),
        ("not done", f"{overall.failed} of {overall.requests}"),
        ("latency p50", seconds_text(times.p50 if times else None)),
        ("latency p95", seconds_text(times.p95 if times else None)),
        ("latency p99", seconds_text(times.p99 if times else None)),
        ("latency max", seconds_text(times.max if times else None)),
    ]
    cells = (
        element("div", element("span", name), element("b", value), class_="tile")
        for name, value in tiles
    )
    return element("div", *cells, class_="tiles")


def _facts(report: Report) -> Markup:
    lines = circumstances(report)
    return element("dl", *(element("div", element("dt", k), element("dd", v)) for k, v in lines))


def _latencies(report: Report) -> Iterable[Markup]:
    if not report.overall.done:
        return ()
    return (
        element("h2", "How long requests took"),
        _plots(
            ("By percentile", plots.percentile_plot(report)),
            ("How many took how long", plots.histogram_plot(report)),
        ),
    )


def _over_time(report: Report) -> Iterable[Markup]:
    if not report.overall.requests:
        return ()
    figures = [("Throughput", plots.rate_plot(report))]
    if report.overall.done:
        figures.append(("Latency of what ended", plots.latency_plot(report)))
    if report.occupancy.points:
        waiting = "" if report.occupancy.peak_queue_depth is None else " and waiting"
        figures.append((f"In flight{waiting}", plots.queue_plot(report)))
    if report.occupancy.mean_rows_per_step is not None:
        figures.append(("Rows per denoising step", plots.rows_plot(report)))
    return element("h2", "Over the run"), _plots(*figures)


def _plots(*figures: tuple[str, Markup]) -> Markup:
    drawn = (element("figure", element("h3", title), plot) for title, plot in figures)
    return element("div", *drawn, class_="plots")


def _tables(report: Report) -> Iterable[Markup]:
    yield element("h2", "By class, tenant and template")
    bodies = [_body([("all", report.overall)])]
    for title, groups in groupings(report):
        bodies.append(_grouping(title, groups))
    yield _table(("", *GROUP_TITLES), bodies)
    if report.failures:
        yield element("h2", "What was not done")
        rows = [
            _row([failure.status, failure.failure, str(failure.count)])
            for failure in report.failures
        ]
        yield _table(("ended as", "reason", "requests"), [element("tbody", *rows)], "words")


def _grouping(title: str, groups: Mapping[str, Group]) -> Markup:
    rows, others = listed(groups)
    heading = element("tr", element("th", title, class_="group"))
    more = element("tbody", _row([f"and {others} more"])) if others else Markup("")
    return joined(element("tbody", heading), _body(rows), more)


def _body(rows: Sequence[tuple[str, Group]]) -> Markup:
    return element("tbody", *(_row([name, *_cells(group)]) for name, group in rows))


def _row(cells: Sequence[str]) -> Markup:
    name, *rest = cells
    return element("tr", element("td", name, class_="name"), *(element("td", c) for c in rest))


def _cells(group: Group) -> list[str]:
    times = group.latency
    latencies = (times.p50, times.p90, times.p95, times.p99, times.max) if times else (None,) * 5
    return [
        str(group.requests),
        str(group.done),
        number_text(group.images_per_second),
        number_text(group.goodput_images_per_second),
        *map(seconds_text, latencies),
        attainment_text(group.attainment),
    ]


def _table(titles: Sequence[str], bodies: Sequence[Markup], style: str | None = None) -> Markup:
    head = element("thead", element("tr", *(element("th", title) for title in titles)))
    return element("div", element("table", head, *bodies, class_=style), class_="scroll")


def _footer() -> Markup:
    return element(
        "footer",
        "Latency counts from the intended send time, of the requests that were done. Rates count "
        "what ended inside the window. A request that failed has missed its deadline.",
    )
