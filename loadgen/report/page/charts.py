"""Line and bar charts as SVG. They scale with the page and take their colours from its style."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.report.page.frame import (
    FLOOR,
    INNER_WIDTH,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    grid,
    marks,
    svg,
    words,
    x_of,
    y_of,
)
from loadgen.report.page.markup import Markup, element, joined

REST_WIDTH: Final = 64
"""Room for a last bar that stands apart."""
MOST_TIPS: Final = 150
"""With more points than this each would be too thin to be pointed at."""

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """`style` is a class of the page's style; None in a point leaves a gap."""

    name: str
    style: str
    points: Sequence[Point]
    width: float | None = None
    """Of the interval that each point begins: the line is drawn in steps."""


@dataclass(frozen=True, slots=True)
class Bar:
    """From `low` to `high` of the x axis; `high` None: a last bar beside the axis, for the rest."""

    low: float
    high: float | None
    value: float
    tip: str


def line_chart(chart: Chart, series: Sequence[Series]) -> Markup:
    drawn = lines(chart, series)
    parts = (grid(chart, INNER_WIDTH), drawn, marks(chart, INNER_WIDTH), _tips(chart))
    return joined(legend(series), svg(chart, *parts))


def lines(chart: Chart, series: Sequence[Series]) -> Markup:
    """The series alone, to be put into an image."""
    return joined(*(_line(chart, one) for one in series))


def bar_chart(chart: Chart, bars: Sequence[Bar]) -> Markup:
    width = INNER_WIDTH - (REST_WIDTH if any(bar.high is None for bar in bars) else 0)
    drawn = joined(*(_bar(chart, bar, width) for bar in bars))
    return svg(chart, grid(chart, width), drawn, marks(chart, width))


def legend(series: Sequence[Series]) -> Markup:
    """Nothing for a single series: the chart's title names it."""
    if len(series) < 2:
        return Markup("")
    keys = (element("li", element("i", class_=one.style), one.name) for one in series)
    return element("ul", *keys, class_="legend")


def _line(chart: Chart, series: Series) -> Markup:
    parts: list[Markup] = []
    for run in _runs(series.points):
        places = [(x_of(chart, x), y_of(chart, y)) for x, y in run]
        if series.width is not None:
            places = _steps(places, x_of(chart, series.width) - LEFT)
        if len(places) == 1:
            [(x, y)] = places
            parts.append(element("circle", class_=series.style, cx=x, cy=y, r=2.5))
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(element("polyline", class_=series.style, points=path))
    return joined(*parts)


def _runs(points: Iterable[Point]) -> list[list[tuple[float, float]]]:
    """The stretches of points without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is not None:
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _steps(places: Sequence[tuple[float, float]], width: float) -> list[tuple[float, float]]:
    return [corner for x, y in places for corner in ((x, y), (x + width, y))]


def _tips(chart: Chart) -> Markup:
    """Invisible stripes from each point to the next, which show their text when pointed at."""
    if len(chart.tips) > MOST_TIPS:
        return Markup("")
    starts = [x_of(chart, x) for x, _ in chart.tips]
    stripes = []
    for (_, tip), start, end in zip(chart.tips, starts, [*starts[1:], WIDTH - RIGHT], strict=False):
        width, height = max(0.0, end - start), FLOOR - TOP
        inside = element("title", tip)
        stripes.append(
            element("rect", inside, class_="tip", x=start, y=TOP, width=width, height=height)
        )
    return joined(*stripes)


def _bar(chart: Chart, bar: Bar, width: float) -> Markup:
    if bar.high is None:
        left, right = LEFT + width + 24.0, WIDTH - RIGHT - 8.0
        label = words("more", (left + right) / 2, FLOOR + 17)
    else:
        left, right = x_of(chart, bar.low, width) + 0.5, x_of(chart, bar.high, width) - 0.5
        label = Markup("")
    top = y_of(chart, bar.value)
    drawn = element(
        "rect",
        element("title", bar.tip),
        class_="bar",
        x=left,
        y=top,
        width=max(0.5, right - left),
        height=FLOOR - top,
    )
    return joined(drawn, label)
