"""The page: well formed, self-contained, nothing on top of anything else."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Final
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.outcomes.outcome import Outcome, Sample
from loadgen.report.page.axes import Axis, counting, duration, elapsed, linear, percentiles
from loadgen.report.page.frame import INNER_WIDTH, LEFT
from loadgen.report.page.html import render_html
from loadgen.report.page.markup import Markup, element, joined
from loadgen.report.statistics.model import Report
from loadgen.report.statistics.slo import Absolute, OwnDeadlines, TimesSolo
from loadgen.report.statistics.summary import summarise
from tests.loadgen.report.shots import busy_run, outcome, samples

VOID: Final = {"meta"}
CHARACTER: Final = 7.5
"""Pixels that a digit takes at most, in the size that wide screens get."""


def busy() -> Report:
    outcomes = busy_run()
    return summarise(outcomes, samples(outcomes), Absolute(2.0), 60.0, {"target": "a test"})


def quiet(outcomes: list[Outcome]) -> Report:
    return summarise(outcomes, [], OwnDeadlines(), 10.0)


class Strict(HTMLParser):
    """Fails at an element that is not closed where it should be; collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_a_run_has_all_six_plots_and_its_tables() -> None:
    page = render_html(busy())
    assert len(drawings(page)) == 6
    text = " ".join(parsed(page).text)
    for expected in ("a test", "within 2 s", "interactive", "carla", "large", "rejected_by_test"):
        assert expected in text


@pytest.mark.parametrize(
    ("outcomes", "plots"),
    [([], 0), ([outcome()], 4), ([outcome(latency=0.0)], 4), ([outcome(status="lost")] * 20, 1)],
    ids=["none", "one", "one in no time", "all lost"],
)
def test_a_run_of_little_or_nothing_has_a_page(outcomes: list[Outcome], plots: int) -> None:
    page = render_html(quiet(outcomes))
    parsed(page)
    assert len(drawings(page)) == plots


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = render_html(busy())
    assert not re.search(r"(src=|href=|@import|url\()", page)
    assert not {"script", "link", "img", "iframe"} & set(parsed(page).tags)


def test_names_are_text_wherever_they_come_from() -> None:
    evil = '<script>alert("x")</script>&amp;'
    one = outcome(tenant=evil, template=evil, status="failed")
    other = Outcome(one.shot, 0.0, 1.0, "failed", evil, 0, 0)
    said = summarise(
        [one, other, outcome(tenant=evil)],
        [],
        TimesSolo(2.0, {evil: 1.0, "small": 1.0}),
        10.0,
        {"target": evil, evil: evil},
    )
    page = parsed(render_html(said))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 6


def test_every_part_of_a_plot_is_inside_its_picture() -> None:
    numbers = re.compile(r"-?[\d.]+")
    for svg in drawings(render_html(busy())):
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for part in svg.iter():
            for name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(part.attrib.get(name, 0)) <= width
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(part.attrib.get(name, 0)) <= height
            places = list(map(float, numbers.findall(part.attrib.get("points", ""))))
            assert all(0 <= x <= width for x in places[::2])
            assert all(0 <= y <= height for y in places[1::2])


def test_a_gap_in_what_is_known_is_a_gap_in_the_line() -> None:
    seen = [Sample(float(at), 1, 1, None if at == 5 else 2.0) for at in range(1, 10)]
    said = summarise([outcome()], seen, Absolute(2.0), 10.0)
    rows = drawings(render_html(said))[-1]
    assert len(list(rows.iter("polyline"))) == 2


def test_what_is_no_markup_is_escaped() -> None:
    assert element("b", "<", Markup("<i></i>"), title='"') == '<b title="&quot;">&lt;<i></i></b>'
    assert joined("&", Markup("&amp;")) == "&amp;&amp;"
    assert element("p", class_="x", text_anchor=None, x=1.0) == '<p class="x" x="1"></p>'


def apart(axis: Axis) -> bool:
    """Whether the labels of a horizontal axis leave room between them."""
    places = [
        (LEFT + axis.position(value) * INNER_WIDTH, len(label) * CHARACTER)
        for value, label in axis.ticks
    ]
    return all(
        right - left >= (width + next_width) / 2
        for (left, width), (right, next_width) in pairwise(places)
    )


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 2_000_000))
def test_percentile_labels_stand_apart_and_in_order(count: int) -> None:
    axis = percentiles("", count)
    assert apart(axis)
    assert axis.position(100.0) == pytest.approx(1.0)
    assert axis.position(0.0) == 0.0


@settings(deadline=None, derandomize=True)
@given(st.floats(0.001, 1e6))
def test_labels_of_a_time_axis_stand_apart_and_none_is_beyond_the_end(end: float) -> None:
    axis = elapsed("time", end)
    assert apart(axis)
    assert all(axis.position(value) <= 1 + 1e-6 for value, _ in axis.ticks)
    assert len(axis.ticks) >= 3


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-6, 1e6))
def test_an_axis_reaches_its_highest_value_with_few_short_labels(high: float) -> None:
    for axis in (linear("", high), duration("", high), counting("", high)):
        assert axis.position(high) <= 1 + 1e-6
        assert axis.ticks[-1][0] >= high * (1 - 1e-6)
        assert 2 <= len(axis.ticks) <= 6
        assert len({label for _, label in axis.ticks}) == len(axis.ticks)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 1_000_000))
def test_a_count_has_whole_labels(high: int) -> None:
    assert all("." not in label or "k" in label for _, label in counting("", high).ticks)
