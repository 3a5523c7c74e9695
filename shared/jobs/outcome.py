"""The one message that tells users how a job ended."""

from shared.jobs.record import JobRecord, NodeState
from shared.messages import JobCancelled, JobDone, JobFailed, Outcome, StageTime


def outcome_of(record: JobRecord) -> Outcome:
    """The one message that tells users how an ended job ended."""
    stages = [_stage(state) for state in record.nodes.values() if state.status == "done"]
    match record.status:
        case "done":
            spec = record.spec
            return JobDone(
                job_id=record.job_id,
                model=spec.model,
                images=spec.n,
                seed=spec.seed,
                steps=spec.steps,
                width=spec.width,
                height=spec.height,
                output_format=spec.output_format,
                seconds=(record.ended_at or 0.0) - record.created_at,
                stages=stages,
                approximations=list(record.approximations),
                warnings=list(record.warnings),
                text_tokens=record.text_tokens,
            )
        case "failed":
            assert record.failure is not None
            return JobFailed(job_id=record.job_id, failure=record.failure, stages=stages)
        case "cancelled":
            return JobCancelled(job_id=record.job_id)
        case "running":
            raise ValueError(f"{record!r} has not ended")


def _stage(state: NodeState) -> StageTime:
    return StageTime(
        node=state.node.name,
        kind=state.node.kind,
        waiting=state.started_at - state.ready_at,
        running=state.finished_at - state.started_at,
        worker=state.worker,
        attempts=state.attempt,
    )
