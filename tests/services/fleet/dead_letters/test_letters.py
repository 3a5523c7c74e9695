"""What is read in a dead letter, and what is made of it."""

import io
import itertools
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from services.fleet.dead_letters.letters import (
    DeadLetterUnusable,
    headline,
    request_of,
    resubmission,
    retry_ids,
)
from services.fleet.dead_letters.report import as_json, as_lines, as_table, printable
from shared.jobs.dead import DeadLetter
from shared.jobs.validate import validate
from shared.messages import (
    JOB_ID_PATTERN,
    ControlChoice,
    GenerationRequest,
    JobSpec,
    decode,
    encode,
)
from tests.helpers import factories
from tests.services.fleet.dead_letters import dead

JOB_IDS = st.from_regex(JOB_ID_PATTERN, fullmatch=True)


def controls() -> st.SearchStrategy[ControlChoice]:
    return st.builds(
        ControlChoice,
        model=st.just("edges"),
        image=st.binary(min_size=1),
        scale=st.floats(-10, 10),
        start=st.floats(0, 0.5, exclude_max=True),
        end=st.floats(0.5, 1),
        guess_mode=st.booleans(),
    )


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Whatever a planner would accept."""

    def maybe(values: st.SearchStrategy[object]) -> object:
        return draw(st.none() | values)

    sides = st.integers(1, 32).map(lambda n: 8 * n)
    return factories.request(
        job_id=draw(JOB_IDS),
        prompt=draw(st.text(min_size=1).filter(str.strip)),
        negative_prompt=maybe(st.text()),
        n=draw(st.integers(1, 10)),
        width=maybe(sides),
        height=maybe(sides),
        steps=maybe(st.integers(1, 1000)),
        guidance=maybe(st.floats(0, 100)),
        sampler=maybe(st.sampled_from(("euler", "ddim", "dpmpp_2m"))),
        seed=maybe(st.integers(0, 2**63 - 11)),
        service_class=draw(st.sampled_from(("interactive", "standard", "batch"))),
        deadline=maybe(st.floats(0, 1e10)),
        previews=draw(st.integers(0, 3)),
        output_format=draw(st.sampled_from(("png", "jpeg", "webp"))),
        output_compression=draw(st.integers(0, 100)),
        user=maybe(st.text(max_size=256)),
        controls=tuple(draw(st.lists(controls(), max_size=4))),
        control_lag=draw(st.integers(0, 1)),
    )


def specified(request: GenerationRequest) -> JobSpec:
    return validate(request, factories.catalogue())


@settings(deadline=None)
@given(requests(), JOB_IDS)
def test_what_is_tried_again_is_the_same_job_without_its_deadline(
    request: GenerationRequest, new_id: str
) -> None:
    spec = specified(request)
    again = request_of(
        spec, new_id, {k: control.image for k, control in enumerate(request.controls)}
    )
    assert again.job_id == new_id
    assert again.controls == request.controls
    assert specified(again) == msgspec.structs.replace(spec, deadline=None)


@settings(deadline=None)
@given(requests(), JOB_IDS)
def test_a_submission_without_a_record_is_tried_again_as_it_came(
    request: GenerationRequest, new_id: str
) -> None:
    letter = dead.unplanned(encode(request), request.job_id)
    again = decode(resubmission(letter, new_id, {}), GenerationRequest)
    assert again == msgspec.structs.replace(request, job_id=new_id, deadline=None)


@pytest.mark.parametrize(
    "submission", [b"", b"\xc1", encode([1, 2]), encode({1: 2}), b"\x91" * 5000]
)
def test_what_is_no_map_cannot_be_tried_again(submission: bytes) -> None:
    with pytest.raises(DeadLetterUnusable, match=r"job-1.*no MessagePack map"):
        resubmission(dead.unplanned(submission), "job-1-r1", {})


@settings(deadline=None)
@given(JOB_IDS)
def test_ids_of_retries_are_job_ids_and_all_differ(job_id: str) -> None:
    ids = list(itertools.islice(retry_ids(job_id), 12))
    assert len({job_id, *ids}) == 13
    assert all(re.fullmatch(JOB_ID_PATTERN, found) for found in ids)


@pytest.mark.parametrize(
    ("job_id", "first"),
    [
        ("a", "a-r1"),
        ("a-r1", "a-r2"),
        ("a-r9", "a-r10"),
        ("a-r0", "a-r0-r1"),
        ("-r1", "-r1-r1"),
        ("x" * 64, "x" * 61 + "-r1"),
        ("x" * 61 + "-r9", "x" * 60 + "-r10"),
    ],
)
def test_a_retry_counts_on_from_the_id_it_retries(job_id: str, first: str) -> None:
    assert next(retry_ids(job_id)) == first


def test_a_poisoned_job_names_its_node_and_what_it_killed() -> None:
    line = headline(dead.poisoned())
    assert (line.node, line.code, line.attempts, line.kills) == ("denoise-0", "poisoned", 2, 2)
    assert (line.job_id, line.model, line.buried_at) == ("job-1", "pocket-sdxl", 100.0)


def test_the_node_that_failed_is_the_one_whose_attempts_failed() -> None:
    assert headline(dead.broken(n=3)).node == "denoise-2"


def test_where_nothing_tells_which_node_failed_none_is_named() -> None:
    two_at_work = msgspec.structs.replace(dead.running(n=2), status="failed", failure=dead.FATAL)
    assert headline(dead.letter_of(two_at_work)).node == ""
    state = msgspec.structs.replace(two_at_work.nodes["denoise-1"], causes=(dead.FATAL,))
    nodes = {**two_at_work.nodes, "denoise-1": state}
    told = msgspec.structs.replace(two_at_work, nodes=nodes)
    assert headline(dead.letter_of(told)).node == "denoise-1"


def test_a_job_that_no_planner_survived_shows_what_its_submission_says() -> None:
    line = headline(dead.unplanned(encode(factories.request(model="big"))))
    assert (line.model, line.node, line.attempts, line.kills) == ("big", "plan", 0, 0)
    assert headline(dead.unplanned(b"\xc1")).model == ""


def test_a_person_is_shown_the_request_the_causes_and_the_end() -> None:
    letter = dead.poisoned(prompt="a large \x1b[2Jred circle")
    lines = list(as_lines(letter))
    text = "\n".join(lines)
    assert r"prompt: a large \x1b[2Jred circle" in text
    assert "attempt 1 ended: internal_error: it broke" in text
    assert letter.failure.message in text
    [node] = [line for line in lines if line.startswith("  denoise-0")]
    for part in ("attempt 2", "lease 3", "2 leases lost", "2 of them while it ran alone"):
        assert part in node


def test_a_person_is_shown_how_much_of_a_submission_cannot_be_read() -> None:
    assert "  3 bytes that are no MessagePack map" in as_lines(dead.unplanned(b"\xc1\xc1\xc1"))


def test_pictures_in_a_submission_are_shown_by_their_size() -> None:
    submission = encode(factories.request(controls=(factories.control(image=bytes(10**6)),)))
    [line] = [one for one in as_lines(dead.unplanned(submission)) if "controls" in one]
    assert "'image': '1000000 bytes'" in line


@settings(deadline=None)
@given(st.text(st.characters()))
def test_nothing_that_is_shown_can_steer_a_terminal(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize("width", [80, 119, 120, 300])
def test_a_table_fits_its_width_with_every_letter_on_one_line(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(as_table([headline(dead.poisoned(32 * "a"))], width))
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    [row] = [line for line in lines if 32 * "a" in line]
    assert "poisoned" in row
    assert len([line for line in lines if line.strip()]) == 3  # the head, a rule, the row


@pytest.mark.parametrize("letter", [dead.poisoned(), dead.unplanned(b"\xc1\x00")])
def test_a_letter_survives_its_json(letter: DeadLetter) -> None:
    assert msgspec.json.decode(as_json(letter), type=DeadLetter) == letter
