"""The plots of a report. Pure."""

from collections.abc import Callable

from loadgen.report.page import axes
from loadgen.report.page.charts import Bar, Series, bar_chart, line_chart
from loadgen.report.page.frame import Chart, Mark
from loadgen.report.page.markup import Markup
from loadgen.report.statistics.model import Interval, OccupancyPoint, Report
from loadgen.report.statistics.slo import Absolute, TimesSolo
from loadgen.report.statistics.units import number_text, seconds_text

ELAPSED = "time since the start"


def percentile_plot(report: Report) -> Markup:
    curves = {"all": report.curve}
    if len(report.by_class) > 1:
        curves |= report.curve_by_class
    series = [
        Series(name, f"s{number}", [(point.percentile, point.seconds) for point in points])
        for number, (name, points) in enumerate(curves.items(), start=1)
    ]
    highest = max(point.seconds for point in report.curve)
    chart = Chart(
        "Latency by percentile",
        axes.percentiles("percentile of the requests done", report.overall.done),
        axes.duration("latency", highest),
        across=deadline_marks(report),
        tips=[
            (point.percentile, f"{point.percentile:.4g}%: {seconds_text(point.seconds)}")
            for point in report.curve
        ],
    )
    return line_chart(chart, series)


def histogram_plot(report: Report) -> Markup:
    bars = [
        Bar(
            one.low,
            one.high,
            one.count,
            f"{seconds_text(one.low)} {f'to {seconds_text(one.high)}' if one.high else 'or more'}: "
            f"{one.count} requests",
        )
        for one in report.bins
    ]
    edge = max(one.high for one in report.bins if one.high is not None)
    chart = Chart(
        "How many requests took how long",
        axes.elapsed("latency", edge),
        axes.counting("requests", max(one.count for one in report.bins)),
        down=deadline_marks(report),
    )
    return bar_chart(chart, bars)


def deadline_marks(report: Report) -> list[Mark]:
    """Where all requests have the same one."""
    match report.slo:
        case Absolute(seconds):
            return [Mark("deadline", seconds)]
        case TimesSolo(factor, solo) if len(set(solo.values())) == 1:
            return [Mark("deadline", factor * next(iter(solo.values())))]
    return []


def rate_plot(report: Report) -> Markup:
    width = report.timeline.width

    def rates(count: Callable[[Interval], int]) -> list[tuple[float, float | None]]:
        return [(one.at, count(one) / width) for one in report.timeline.intervals]

    series = [
        Series("to be sent", "faint", rates(lambda one: one.intended), width),
        Series("done", "s1", rates(lambda one: one.done), width),
    ]
    if report.overall.attainment is not None:
        series.append(Series("done in time", "s3", rates(lambda one: one.good), width))
    if report.overall.failed:
        series.append(Series("not done", "bad", rates(lambda one: one.failed), width))
    highest = max(y or 0.0 for one in series for _, y in one.points)
    return line_chart(
        _over_time(report, "Throughput", axes.linear("requests/s", highest), _rate_tip(width)),
        series,
    )


def _rate_tip(width: float) -> Callable[[Interval], str]:
    def tip(one: Interval) -> str:
        counts = (("to be sent", one.intended), ("done", one.done), ("not done", one.failed))
        rates = ", ".join(f"{name} {number_text(n / width)}/s" for name, n in counts)
        return f"{seconds_text(one.at)}: {rates}"

    return tip


def latency_plot(report: Report) -> Markup:
    intervals = report.timeline.intervals
    middle = report.timeline.width / 2
    series = [
        Series("max", "faint", [(one.at + middle, one.max) for one in intervals]),
        Series("p95", "s2", [(one.at + middle, one.p95) for one in intervals]),
        Series("p50", "s1", [(one.at + middle, one.p50) for one in intervals]),
    ]
    highest = max((one.max for one in intervals if one.max is not None), default=1.0)
    chart = _over_time(report, "Latency", axes.duration("latency", highest), _latency_tip)
    return line_chart(chart, series)


def _latency_tip(one: Interval) -> str:
    if one.p50 is None:
        return f"{seconds_text(one.at)}: nothing done"
    times = (("p50", one.p50), ("p95", one.p95), ("max", one.max))
    text = ", ".join(f"{name} {seconds_text(value)}" for name, value in times)
    return f"{seconds_text(one.at)}: {text}"


def queue_plot(report: Report) -> Markup:
    points = report.occupancy.points
    series = [Series("in flight", "s1", [(one.at, one.in_flight) for one in points])]
    if report.occupancy.peak_queue_depth is not None:
        series.append(Series("waiting", "s2", [(one.at, one.queue_depth) for one in points]))
    highest = max(y or 0.0 for one in series for _, y in one.points)
    return line_chart(_sampled(report, "In flight and waiting", "requests", highest), series)


def rows_plot(report: Report) -> Markup:
    series = Series("rows", "s3", [(one.at, one.rows_per_step) for one in report.occupancy.points])
    highest = max(y or 0.0 for _, y in series.points)
    return line_chart(_sampled(report, "Rows per step", "rows", highest), [series])


def _sampled(report: Report, title: str, unit: str, highest: float) -> Chart:
    return Chart(
        title,
        axes.elapsed(ELAPSED, _end(report)),
        axes.counting(unit, highest),
        down=_window_marks(report),
        tips=[(one.at, _occupancy_tip(one)) for one in report.occupancy.points],
    )


def _occupancy_tip(one: OccupancyPoint) -> str:
    return (
        f"{seconds_text(one.at)}: {number_text(one.in_flight)} in flight, "
        f"{number_text(one.queue_depth)} waiting, {number_text(one.rows_per_step)} rows per step"
    )


def _over_time(report: Report, title: str, y: axes.Axis, tip: Callable[[Interval], str]) -> Chart:
    return Chart(
        title,
        axes.elapsed(ELAPSED, _end(report)),
        y,
        down=_window_marks(report),
        tips=[(one.at, tip(one)) for one in report.timeline.intervals],
    )


def _end(report: Report) -> float:
    """All plots over time end together, so that they can be compared."""
    sampled = max((one.at for one in report.occupancy.points), default=0.0)
    return max(len(report.timeline.intervals) * report.timeline.width, sampled)


def _window_marks(report: Report) -> list[Mark]:
    if report.drain_seconds <= 2 * report.timeline.width:
        return []
    return [Mark("end of window", report.seconds)]
