from pathlib import Path

import pytest

from loadgen.workload.files import load_trace, load_workload
from loadgen.workload.trace import parse_trace
from shared.errors import InvalidRequest


def test_gaps_count_from_the_line_before_whoever_it_was_of() -> None:
    found = parse_trace(["# tenant gap", "ann 0.5", "", "bob 1", "ann\t0.25"])
    assert [(arrival.tenant, arrival.at) for arrival in found] == [
        ("ann", 0.5),
        ("bob", 1.5),
        ("ann", 1.75),
    ]
    assert all(not arrival.changes for arrival in found)


def test_a_gap_counts_from_the_line_before_also_where_that_was_json() -> None:
    lines = ['{"time": 10, "tenant": "ann"}', "", " \t\r", "bob 1", '{"time": 20}', "# x", "cy 0.5"]
    assert [arrival.at for arrival in parse_trace(lines)] == [10, 11, 20, 20.5]


ODD = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""What Python takes for ends of lines, and JSON for characters (the first five when escaped)."""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_lines_of_a_file_end_at_line_feeds_only(tmp_path: Path, begin: str, end: str) -> None:
    prompt = f"a{ODD[5:]}b"
    lines = [
        f'{{"time": 1, "prompt": "{prompt}"}}',
        f"# a remark {ODD} ann 5",
        "ann\x0b1",
        "\ufeffbob 1",  # a file that was joined to this one
        f"c{ODD[2:]}y 2",
    ]
    file = tmp_path / "trace.txt"
    file.write_bytes((begin + end.join(lines)).encode())
    found = load_trace(file)
    assert found[0].changes == {"prompt": prompt}
    assert [(one.tenant, one.at) for one in found[1:]] == [
        ("ann", 2),
        ("bob", 3),
        (f"c{ODD[2:]}y", 5),
    ]


def test_a_carriage_return_alone_and_another_encoding_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_bytes(b"ann 1\rbob 2\r")
    with pytest.raises(InvalidRequest, match="line 1"):
        load_trace(file)
    file.write_bytes("ann 1".encode("utf-16"))
    with pytest.raises(InvalidRequest, match="UTF-8"):
        load_trace(file)


def test_a_workload_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    for name, text in (("w.toml", "seconds = 7.0\r\nseed = 3"), ("w.json", '{"seconds": 7.0}')):
        (tmp_path / name).write_bytes(f"\ufeff{text}".encode())
        assert load_workload(tmp_path / name).seconds == 7.0


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
