"""The plot of `fidelity`: how like exact pictures others are, by when their LoRA joins. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from loadgen.report.page import axes
from loadgen.report.page.charts import Series, lines
from loadgen.report.page.frame import (
    HEIGHT,
    INNER_WIDTH,
    WIDTH,
    Chart,
    grid,
    svg,
    words,
    x_of,
    y_of,
)
from loadgen.report.page.markup import Markup, element
from loadgen.report.page.style import STYLE

TITLE: Final = "SSIM with the exact picture"
BELOW: Final = "steps before the LoRA joins; a ring: as many as it is calibrated for"
OWN: Final = Markup("""
svg { background: var(--page); width: 520px; height: 258px; }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.s1.name { fill: var(--s1); } .s2.name { fill: var(--s2); } .s3.name { fill: var(--s3); }
.s4.name { fill: var(--s4); }
circle.ring { stroke-width: 1.8; fill: var(--page); }
circle.s1.ring { stroke: var(--s1); } circle.s2.ring { stroke: var(--s2); }
circle.s3.ring { stroke: var(--s3); } circle.s4.ring { stroke: var(--s4); }
""")
"""What a picture needs that stands alone, beside the page's style."""
NAMES_AT, NAMES_APART = 288, 58
"""Pixels: where the series' names begin, beside the title."""


def late_plot(loras: Mapping[str, Mapping[str, Any]], steps: int) -> str:
    """An SVG file of the `late_loras` of `fidelity`, at most four of them; of pictures of so many
    steps."""
    chart = Chart(TITLE, _steps_axis(steps), axes.linear(TITLE, 1.0))
    series = [
        Series(name, f"s{number}", [(int(k), y) for k, y in one["ssim_by_late_steps"].items()])
        for number, (name, one) in enumerate(list(loras.items())[:4], start=1)
    ]
    rings = []
    for line in series:
        late = loras[line.name]["late_steps"]
        y = dict(line.points)[late]
        assert y is not None
        at = {"cx": x_of(chart, late), "cy": y_of(chart, y)}
        rings.append(element("circle", class_=f"{line.style} ring", r=4, **at))
    parts = (grid(chart, INNER_WIDTH), lines(chart, series), *rings, *_names(series))
    drawn = svg(chart, element("style", STYLE, OWN), *parts)
    return f"{_coloured(drawn.replace('<svg', _FILE, 1))}\n"


def _coloured(drawn: str) -> str:
    """With the page's light colours themselves: not all that shows an SVG knows variables."""
    light, _, _ = STYLE.partition("@media")
    colours = dict(re.findall(r"--(\w+): ([^;]+);", light))
    return re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], drawn)


_FILE: Final = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'


def _steps_axis(steps: int) -> axes.Axis:
    """From 0 to exactly `steps`."""
    shown = [tick for tick in axes.linear(BELOW, steps).ticks if tick[0] <= steps]
    return axes.Axis(BELOW, shown, lambda k: k / steps)


def _names(series: Sequence[Series]) -> list[Markup]:
    """In their colours."""
    return [
        words(line.name, NAMES_AT + n * NAMES_APART, 13, "start", f"{line.style} name")
        for n, line in enumerate(series)
    ]
