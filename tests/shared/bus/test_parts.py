"""Subject patterns, and the bounded buffer behind every subscription."""

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus import inbox as inbox_module
from shared.bus.base import Message
from shared.bus.inbox import Inbox
from shared.bus.nats import api
from shared.bus.patterns import matches, overlap
from shared.errors import BusUnavailable
from tests.conftest import run

SUBJECTS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)
PATTERNS = st.tuples(st.lists(st.sampled_from("ab*"), max_size=3), st.sampled_from("ab*>")).map(
    lambda parts: ".".join([*parts[0], parts[1]])
)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        (">", "a", True),
    ],
)
def test_a_pattern_matches_as_nats_says(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


@given(PATTERNS, PATTERNS, SUBJECTS)
def test_patterns_that_match_one_subject_overlap(first: str, second: str, subject: str) -> None:
    if matches(first, subject) and matches(second, subject):
        assert overlap(first, second)


@given(PATTERNS, PATTERNS)
def test_patterns_that_overlap_have_a_subject_in_common(first: str, second: str) -> None:
    if overlap(first, second):
        pairs = zip(_stretched(first, second), _stretched(second, first), strict=True)
        common = ".".join(_meet(one, other) for one, other in pairs)
        assert matches(first, common)
        assert matches(second, common)


def _stretched(pattern: str, other: str) -> list[str]:
    """`pattern` with its last `>` written as as many `*` as make it as long as `other`."""
    tokens = pattern.split(".")
    if tokens[-1] == ">":
        tokens[-1:] = ["*"] * max(1, len(other.split(".")) - len(tokens) + 1)
    return tokens


def _meet(one: str, other: str) -> str:
    return next((token for token in (one, other) if token not in "*>"), "a")


def test_an_inbox_gives_what_it_got_in_order_and_then_ends() -> None:
    async def scenario() -> None:
        inbox = Inbox("a")
        for i in range(3):
            inbox.offer(Message("a", b"%d" % i, {}))
        inbox.close()
        inbox.offer(Message("a", b"too late", {}))
        assert [message.data async for message in inbox] == [b"0", b"1", b"2"]

    run(scenario())


def test_a_full_inbox_drops_the_newest_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_MESSAGES", 2)
    monkeypatch.setattr(inbox_module, "MAX_BYTES", 10)

    async def scenario() -> None:
        inbox = Inbox("a")
        for data in (b"1234", b"12345678", b"5678", b"9"):
            inbox.offer(Message("a", data, {}))
        assert inbox.dropped == 2
        assert repr(inbox) == "<Inbox a: 2/2 messages, 8/10 bytes, 2 dropped>"
        inbox.close()
        assert [message.data async for message in inbox] == [b"1234", b"5678"]

    run(scenario())


def test_a_reader_that_was_cancelled_loses_nothing() -> None:
    async def scenario() -> None:
        inbox = Inbox("a")
        reader = asyncio.create_task(anext(inbox))
        await asyncio.sleep(0)
        inbox.offer(Message("a", b"1", {}))
        reader.cancel()
        await asyncio.wait([reader])
        assert (await anext(inbox)).data == b"1"

    run(scenario())


def test_only_one_package_imports_the_client_library() -> None:
    root = Path(__file__).parents[3]
    importing = re.compile(r"^\s*(import nats|from nats)\b", re.MULTILINE)
    files = [file for top in ("shared", "services") for file in (root / top).rglob("*.py")]
    found = {file.parent for file in files if importing.search(file.read_text())}
    assert found == {root / "shared" / "bus" / "nats"}


@pytest.mark.parametrize(
    ("code", "err_code", "passes"),
    [
        (503, 10008, True),  # JetStream has no leader at the moment
        (503, 10077, False),  # a bound was reached
        (400, 10005, True),  # the cluster is just being formed
        (400, 10149, True),  # the consumer of that name is being deleted
        (404, 10014, False),
        (400, 10058, False),
    ],
)
def test_refusals_that_pass_are_told_from_those_that_last(
    code: int, err_code: int, passes: bool
) -> None:
    fault = {"error": {"code": code, "err_code": err_code, "description": "no"}}
    with pytest.raises(BusUnavailable if passes else api.Refused):
        api.read(Message("", api.write(fault), {}))
