"""`GET` and `DELETE /v1/jobs/{id}`, for jobs of any client."""

import asyncio
from typing import Final

from aiohttp import web

from services.gateway.http.core import GATEWAY
from services.gateway.openai.schemas import ErrorDetail, JobView, NodeView
from services.gateway.replies.errors import problem_of
from services.gateway.replies.json import JOB_ID, struct_reply
from services.gateway.routes.generations import image_url
from shared.bus.model_states import waited_for
from shared.client import Darkroom, checked_job_id
from shared.client.calls import error_of
from shared.errors import BusUnavailable, JobNotFound
from shared.jobs.record import JobRecord
from shared.messages import Failure, JobCancelled, JobFailed

CANCEL_SECONDS: Final = 10.0
"""How long a cancellation waits for a planner to take a job that still waits for one."""


async def show(request: web.Request) -> web.Response:
    """How the job stands."""
    return struct_reply(await _view(request))


async def cancel(request: web.Request) -> web.Response:
    """End the job, and answer with how it stands then. Ending it twice is no error, and neither
    is ending one that was faster: its status says so."""
    await _view(request)  # raises JobNotFound
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await request.app[GATEWAY].darkroom.cancel(request.match_info["job_id"])
    except TimeoutError as error:
        reason = f"no planner took the job within {CANCEL_SECONDS:.0f} s; ask again"
        raise BusUnavailable("cancel", reason) from error
    return struct_reply(await _view(request))


async def _view(request: web.Request) -> JobView:
    job_id = request[JOB_ID] = checked_job_id(request.match_info["job_id"])
    darkroom = request.app[GATEWAY].darkroom
    queued = await darkroom.queued(job_id)  # asked first: the record is there before this is not
    try:
        return _of_record(request, await darkroom.job(job_id))
    except JobNotFound:
        if queued:
            stands = await darkroom.waiting(job_id)
            return JobView(
                id=job_id,
                status="queued",
                position=stands.position,
                predicted_seconds=stands.seconds,
                model_state=stands.model_state,
                loading_seconds=stands.loading_seconds,
            )
        return await _of_refused(darkroom, job_id)


async def _of_refused(darkroom: Darkroom, job_id: str) -> JobView:
    """A job that ended before it was released has an outcome, but no record."""
    outcome = await darkroom.stored_outcome(job_id)
    if isinstance(outcome, JobCancelled):
        return JobView(id=job_id, status="cancelled")
    if not isinstance(outcome, JobFailed):
        raise JobNotFound(job_id)
    return JobView(id=job_id, status="failed", error=_detail(job_id, outcome.failure))


def _of_record(request: web.Request, record: JobRecord) -> JobView:
    done = record.status == "done"
    found = request.app[GATEWAY].found
    stands = None if record.ended else waited_for(found, record.spec.model)
    return JobView(
        id=record.job_id,
        status=record.status,
        model=record.spec.model,
        created_at=record.created_at,
        ended_at=record.ended_at,
        nodes=[
            NodeView(
                name=state.node.name,
                kind=state.node.kind,
                status=state.status,
                attempt=state.attempt,
                worker=state.worker,
            )
            for state in record.nodes.values()
        ],
        images=[image_url(request, record.job_id, i) for i in range(record.spec.n)] if done else [],
        warnings=list(record.warnings),
        model_state=stands.state if stands else None,
        loading_seconds=stands.seconds if stands else None,
        error=None if record.failure is None else _detail(record.job_id, record.failure),
    )


def _detail(job_id: str, failure: Failure) -> ErrorDetail:
    return problem_of(error_of(job_id, failure)).detail
