import pytest

from loadgen.trace import parse_trace
from shared.errors import InvalidRequest


def test_gaps_count_from_the_line_before_whoever_it_was_of() -> None:
    found = parse_trace(["# tenant gap", "ann 0.5", "", "bob 1", "ann\t0.25"])
    assert [(arrival.tenant, arrival.at) for arrival in found] == [
        ("ann", 0.5),
        ("bob", 1.5),
        ("ann", 1.75),
    ]
    assert all(not arrival.changes for arrival in found)


def test_a_json_line_says_what_was_asked_for() -> None:
    line = (
        '{"time": 2, "tenant": "ann", "model": "sdxl", "steps": 20, "size": "512x768", '
        '"mask_ratio": 0.2, "controls": ["canny=a.png"], "loras": ["ink", "oil"]}'
    )
    [arrival] = parse_trace([line])
    assert (arrival.at, arrival.tenant) == (2.0, "ann")
    assert arrival.changes == {
        "model": "sdxl",
        "steps": 20,
        "width": 512,
        "height": 768,
        "mask_ratio": 0.2,
        "controls": ("canny=a.png",),
        "loras": ("ink", "oil"),
    }


@pytest.mark.parametrize(
    ("line", "field", "value", "allowed"),
    [
        ("ann", "line 2", "'ann'", "tenant gap_seconds"),
        ("ann -1", "line 2, gap_seconds", "'-1'", "a number from 0"),
        ("ann nan", "line 2, gap_seconds", "'nan'", "a number from 0"),
        ("ann soon", "line 2, gap_seconds", "'soon'", "a number from 0"),
        ('{"time": -1}', "line 2, time", "-1", "seconds from the start"),
        ('{"tenant": "ann"}', "line 2, time", "a missing value", "seconds from the start"),
        ('{"time": 1, "steps": 0}', "line 2, steps", "0", "a whole number from 1"),
        ('{"time": 1, "steps": "9"}', "line 2, steps", '"9"', "a whole number from 1"),
        ('{"time": 1, "size": "big"}', "line 2, size", '"big"', "WIDTHxHEIGHT"),
        ('{"time": 1, "mask_ratio": 1.5}', "line 2, mask_ratio", "1.5", "at most 1"),
        ('{"time": 1, "loras": [7]}', "line 2, loras[0]", "7", "a list of names"),
        ('{"time": 1, "stpes": 3}', "line 2, stpes", "this field", "only time, tenant"),
        ('{"time": 1', "line 2", "truncated", "one JSON object"),
    ],
)
def test_a_bad_line_is_refused_by_line_field_and_value(
    line: str, field: str, value: str, allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_trace(["ann 1", line])
    assert raised.value.fields["field"] == field
    assert value in raised.value.fields["value"]
    assert allowed in raised.value.fields["allowed"]


def test_a_trace_without_a_request_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one line"):
        parse_trace(["# nothing", ""])
