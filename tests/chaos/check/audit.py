"""What must hold whatever died: judged from everything that was ever written about every job. Pure.

The auditor knows nothing of how the system works but its promises: an acknowledged job ends
exactly once, with all its images; nothing about it changes afterwards; and only the holder of a
lease writes under it. `tests/chaos/check/test_audit.py` shows that each broken promise is noticed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from shared import subjects
from shared.jobs.record import JobRecord
from shared.messages import JobCancelled, JobDone, Outcome, decode_outcome
from tests.chaos.check.writes import node_violations

Rule = Literal[
    "lost",
    "second result",
    "image missing",
    "image too many",
    "announced differently",
    "outcome disagrees",
    "changed after its end",
    "attempt went back",
    "lease went back",
    "checkpoint went back",
    "two writers under one lease",
    "outputs replaced",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise to job `job_id`."""

    rule: Rule
    job_id: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: job {self.job_id}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream. `sequence` is its place in it: no two have the same."""

    sequence: int
    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was written. Lists are in order of `sequence`."""

    acknowledged: frozenset[str]
    """Jobs whose submission the bus confirmed."""
    revisions: Mapping[str, Sequence[JobRecord]] = field(default_factory=dict)
    """Job -> its record, revision after revision; some may be missing in between."""
    results: Sequence[Stored] = ()
    """All messages of RESULTS, images and outcomes."""
    announced: Sequence[tuple[str, bytes]] = ()
    """(subject, outcome) as heard by whoever listened: also those that the stream refused."""


def audit(history: History) -> list[Violation]:
    """Every broken promise; none is the only good answer."""
    return [*_of_results(history), *_of_records(history)]


def outcomes(history: History) -> dict[str, Outcome]:
    """The first stored outcome of each job."""
    found: dict[str, Outcome] = {}
    for stored in history.results:
        if _image_index(stored.subject) is None:
            found.setdefault(subjects.job_of(stored.subject), decode_outcome(stored.data))
    return found


# ------------------------------------------------------------------------------------- the results


def _of_results(history: History) -> Iterator[Violation]:
    ended = outcomes(history)
    for job_id in sorted(history.acknowledged - ended.keys()):
        yield Violation("lost", job_id, "it was acknowledged and has no outcome")
    for subject, count in Counter(stored.subject for stored in history.results).items():
        if count > 1:
            job_id = subjects.job_of(subject)
            yield Violation("second result", job_id, f"{count} messages were stored on {subject}")
    images = _images(history)
    for job_id, outcome in ended.items():
        wanted = outcome.images if isinstance(outcome, JobDone) else None
        found = images.get(job_id, frozenset())
        if wanted is not None and (missing := set(range(wanted)) - found):
            yield Violation("image missing", job_id, f"done without images {sorted(missing)}")
        if wanted is not None and (excess := found - set(range(wanted))):
            yield Violation("image too many", job_id, f"{sorted(excess)} of {wanted} images")
    yield from _of_announcements(history, ended)


def _of_announcements(history: History, ended: Mapping[str, Outcome]) -> Iterator[Violation]:
    """Whoever listened must have heard what is stored, however often it was said."""
    for subject, data in history.announced:
        job_id, heard = subjects.job_of(subject), decode_outcome(data)
        stored = ended.get(job_id)
        if stored is not None and type(stored) is not type(heard):
            detail = f"heard {type(heard).__name__}, stored is {type(stored).__name__}"
            yield Violation("announced differently", job_id, detail)


def _images(history: History) -> Mapping[str, frozenset[int]]:
    found: defaultdict[str, set[int]] = defaultdict(set)
    for stored in history.results:
        index = _image_index(stored.subject)
        if index is not None:
            found[subjects.job_of(stored.subject)].add(index)
    return {job_id: frozenset(indices) for job_id, indices in found.items()}


def _image_index(subject: str) -> int | None:
    """Which image is stored on `subject`; None for an outcome."""
    *rest, last = subject.split(".")
    return int(last) if ".".join(rest) == subjects.result(subjects.job_of(subject)) else None


# ------------------------------------------------------------------------------------- the records


def _of_records(history: History) -> Iterator[Violation]:
    ended = outcomes(history)
    for job_id, revisions in history.revisions.items():
        for earlier, later in pairwise(revisions):
            if earlier.ended and later != earlier:
                detail = f"{earlier!r} became {later!r}"
                yield Violation("changed after its end", job_id, detail)
        for name in revisions[-1].nodes if revisions else ():
            states = [record.nodes[name] for record in revisions if name in record.nodes]
            for rule, detail in node_violations(states):
                yield Violation(rule, job_id, f"{name}: {detail}")
        outcome = ended.get(job_id)
        if revisions and outcome is not None and not _agree(revisions[-1], outcome):
            detail = f"{type(outcome).__name__} of {revisions[-1]!r}"
            yield Violation("outcome disagrees", job_id, detail)


def _agree(record: JobRecord, outcome: Outcome) -> bool:
    match record.status:
        case "done":
            return isinstance(outcome, JobDone)
        case "cancelled":
            return isinstance(outcome, JobCancelled)
        case "failed":
            return not isinstance(outcome, JobDone | JobCancelled)
        case "running":
            return False
