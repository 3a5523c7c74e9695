"""What has to be done about a job. Carried out by `shared/jobs/record_store.py`; all are
idempotent."""

from dataclasses import dataclass

from shared.messages import Outcome


@dataclass(frozen=True, slots=True)
class PublishNode:
    """Put this attempt of this node into the queue of its model."""

    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ReleaseArenas:
    """Tell the owners of these arenas that the job needs no slot any more."""

    arenas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeadLetterJob:
    """Keep the record, with the causes of its failures, in the dead-letter stream."""


Action = PublishNode | CommitOutcome | ReleaseArenas | DeadLetterJob
