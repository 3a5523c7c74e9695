"""What of a request had no effect goes with its job to whoever reads the outcome."""

import time

import msgspec

from shared.jobs.advance import advance, new_record
from shared.jobs.events import NodeFinished
from shared.jobs.graph import workflow
from shared.jobs.outcome import outcome_of
from shared.jobs.record import JobRecord
from shared.messages import JobDone, decode, encode
from tests.helpers import factories


def ended(record: JobRecord, **warnings: tuple[str, ...]) -> JobDone:
    for name in list(record.nodes):
        told = warnings.get(name, ())
        record, _ = advance(record, NodeFinished(name, 1, {}, "w", 0.0, 1.0, warnings=told))
    outcome = outcome_of(record)
    assert isinstance(outcome, JobDone)
    return decode(encode(outcome), JobDone)


def record(**changes: object) -> JobRecord:
    spec = factories.spec(**changes)
    return new_record("job-1", spec, workflow(spec), time.time())


def test_what_a_node_found_to_have_no_effect_is_in_the_outcome() -> None:
    assert ended(record(), encode=("prompt: b", "negative_prompt: a")).warnings == [
        "negative_prompt: a",
        "prompt: b",
    ]
    assert ended(record()).warnings == []


def test_the_tokens_of_the_prompts_are_in_the_outcome() -> None:
    running, _ = advance(record(), NodeFinished("encode", 1, {}, "w", 0.0, 1.0, text_tokens=9))
    assert ended(running).text_tokens == 9


def test_a_negative_prompt_without_guidance_has_no_effect() -> None:
    [told] = ended(record(negative_prompt="blue", guidance=1.0)).warnings
    assert told.startswith("negative_prompt: it has no effect here: with a guidance of 1 nothing")
    assert ended(record(negative_prompt="blue", guidance=2.0)).warnings == []
    assert ended(record(negative_prompt="", guidance=1.0)).warnings == []


def test_records_and_outcomes_of_older_processes_have_no_warnings() -> None:
    for message in (record(), ended(record())):
        old = {k: v for k, v in msgspec.to_builtins(message).items() if k != "warnings"}
        assert tuple(msgspec.convert(old, type(message)).warnings) == ()
