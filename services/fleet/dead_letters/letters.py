"""Dead letters, read: one line about each, the job that tries again, and its id. Pure."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from shared.errors import DarkroomError
from shared.jobs.dead import DeadLetter
from shared.jobs.record import JobRecord
from shared.messages import ControlChoice, GenerationRequest, JobSpec, encode

MAX_ID: Final = 64
"""Characters of a job id, see `shared.messages.JOB_ID_PATTERN`."""
UNREADABLE: Final = "unreadable"
"""Stands where a failure's code would, for a letter that this version cannot read."""


class DeadLetterUnusable(DarkroomError):
    """The dead letter of `job_id` cannot be had, read or tried again, for `reason`."""

    code = "dead_letter_unusable"

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"job {job_id!r}: {reason}", job_id=job_id, reason=reason)


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter in one line."""

    job_id: str
    buried_at: float
    """0 if it cannot be read, as is everything below that has nothing to say."""
    model: str
    node: str
    """Empty if several nodes were at work, and the letter does not say which of them failed."""
    code: str
    message: str
    attempts: int
    kills: int


def headline(letter: DeadLetter) -> Headline:
    node = failed_node(letter)
    state = letter.record.nodes.get(node) if letter.record else None
    return Headline(
        job_id=letter.job_id,
        buried_at=letter.buried_at,
        model=str(request_fields(letter).get("model") or ""),
        node=node,
        code=letter.failure.code,
        message=letter.failure.message,
        attempts=state.attempt if state else 0,
        kills=state.kills if state else 0,
    )


def unreadable(job_id: str, reason: str) -> Headline:
    """What is said of a letter that cannot be decoded."""
    return Headline(
        job_id=job_id,
        buried_at=0.0,
        model="",
        node="",
        code=UNREADABLE,
        message=reason,
        attempts=0,
        kills=0,
    )


def failed_node(letter: DeadLetter) -> str:
    """The node whose failure ended the job, as far as the letter tells."""
    named = letter.failure.fields.get("node")
    if isinstance(named, str):
        return named
    return _likeliest(letter, letter.record) if letter.record else ""


def _likeliest(letter: DeadLetter, record: JobRecord) -> str:
    """The one at work that failed like this or, if none did, most often; empty if that is none or
    several."""
    weights = {
        name: (letter.failure in state.causes, len(state.causes))
        for name, state in record.nodes.items()
        if state.status == "ready"
    }
    heaviest = max(weights.values(), default=None)
    names = [name for name, weight in weights.items() if weight == heaviest]
    return names[0] if len(names) == 1 else ""


def request_fields(letter: DeadLetter) -> dict[str, object]:
    """What was asked for, by field; empty if there is only a submission that is no map."""
    if letter.record is not None:
        return msgspec.structs.asdict(letter.record.spec)
    return _as_map(letter.submission) or {}


ImageName = int | Literal["image", "mask"]
"""As `subjects.job_input` has it."""


def names_of_images(spec: JobSpec) -> list[ImageName]:
    """Of those that the job came with."""
    names: list[ImageName] = [*range(len(spec.controls))]
    if spec.edit is not None:
        names.append("image")
        names += ["mask"] if spec.edit.mask == "file" else []
    return names


def resubmission(letter: DeadLetter, job_id: str, images: Mapping[ImageName, bytes]) -> bytes:
    """The message that asks for the same once more, as job `job_id`, without its old deadline.
    `images`: those that its record's job came with. Raises `DeadLetterUnusable` if it cannot be
    made out what was asked for."""
    if letter.record is not None:
        return encode(request_of(letter.record.spec, job_id, images))
    fields = _as_map(letter.submission)
    if fields is None:
        raise DeadLetterUnusable(letter.job_id, "what was submitted is no MessagePack map")
    return encode({**fields, "job_id": job_id, "deadline": None})


def request_of(spec: JobSpec, job_id: str, images: Mapping[ImageName, bytes]) -> GenerationRequest:
    """A request for the same image: validated again, it gives `spec` without its deadline.
    `images`: see `names_of_images`."""
    controls = tuple(
        ControlChoice(**msgspec.structs.asdict(control), image=images[number])
        for number, control in enumerate(spec.controls)
    )
    known = GenerationRequest.__struct_fields__
    fields = {name: value for name, value in msgspec.structs.asdict(spec).items() if name in known}
    if spec.edit is not None:
        fields |= {"strength": spec.edit.strength, "mask_mode": spec.edit.mask_mode}
        fields |= {"image": images["image"], "mask": images.get("mask")}
    return GenerationRequest(**fields | {"job_id": job_id, "deadline": None, "controls": controls})


def retry_ids(job_id: str) -> Iterator[str]:
    """What `job_id` may be called when it is tried again, without end: `job-r1`, `job-r2`, …; of
    `job-r2`, `job-r3`, …. A long id loses its last characters to the suffix."""
    again = re.fullmatch(r"(.+)-r([1-9][0-9]{0,5})", job_id)
    name, tries = (again[1], int(again[2])) if again else (job_id, 0)
    for number in itertools.count(tries + 1):
        suffix = f"-r{number}"
        yield name[: MAX_ID - len(suffix)] + suffix


def _as_map(submission: bytes) -> dict[str, object] | None:
    try:
        content = msgspec.msgpack.decode(submission)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return None
    return content
