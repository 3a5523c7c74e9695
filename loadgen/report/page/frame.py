"""What is around the data of a chart: its frame, axes, and marks. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.report.page.axes import Axis
from loadgen.report.page.markup import Markup, element, joined

WIDTH: Final = 520
HEIGHT: Final = 258
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 34, 42
"""Room around the plot, for labels."""
INNER_WIDTH: Final = WIDTH - LEFT - RIGHT
FLOOR: Final = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class Mark:
    """A dashed line across the plot, at a value of one axis."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn where. `across` are marks at y values, `down` at x values."""

    title: str
    x: Axis
    y: Axis
    across: Sequence[Mark] = ()
    down: Sequence[Mark] = ()
    tips: Sequence[tuple[float, str]] = ()
    """(x, text): what is said when a reader points there."""


def svg(chart: Chart, *parts: str) -> Markup:
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=chart.title,
    )


def x_of(chart: Chart, value: float, width: float = INNER_WIDTH) -> float:
    return LEFT + chart.x.position(value) * width


def y_of(chart: Chart, value: float) -> float:
    return FLOOR - chart.y.position(value) * (FLOOR - TOP)


def grid(chart: Chart, width: float) -> Markup:
    """Ticks, their labels, and the titles of both axes."""
    parts: list[Markup] = []
    for value, label in chart.y.ticks:
        y = y_of(chart, value)
        parts += [
            segment("grid", LEFT, y, WIDTH - RIGHT, y),
            words(label, LEFT - 6, y + 4, "end"),
        ]
    for value, label in chart.x.ticks:
        x = x_of(chart, value, width)
        parts += [segment("tick", x, FLOOR, x, FLOOR + 4), words(label, x, FLOOR + 17)]
    parts += [
        words(chart.y.title, 2, 13, "start", "axis"),
        words(chart.x.title, LEFT + INNER_WIDTH / 2, HEIGHT - 6, "middle", "axis"),
    ]
    return joined(*parts)


def marks(chart: Chart, width: float) -> Markup:
    parts: list[Markup] = []
    for mark in chart.across:
        if chart.y.position(mark.value) <= 1:
            y = y_of(chart, mark.value)
            parts.append(segment("mark", LEFT, y, WIDTH - RIGHT, y))
            parts.append(words(mark.name, LEFT + 6, y - 5, "start", "marked"))
    for mark in chart.down:
        if chart.x.position(mark.value) <= 1:
            x = x_of(chart, mark.value, width)
            parts.append(segment("mark", x, TOP, x, FLOOR))
            parts.append(words(mark.name, x, TOP - 5, _anchor(x), "marked"))
    return joined(*parts)


def _anchor(x: float) -> str:
    """Which end of a text to put at `x`, so that it does not leave the image."""
    if x > LEFT + 0.8 * INNER_WIDTH:
        return "end"
    return "start" if x < LEFT + 0.2 * INNER_WIDTH else "middle"


def segment(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("line", class_=style, x1=x1, y1=y1, x2=x2, y2=y2)


def words(
    text: str, x: float, y: float, anchor: str = "middle", style: str | None = None
) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=style)
