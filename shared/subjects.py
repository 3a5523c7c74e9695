"""Every subject, stream, consumer and bucket name. No other file spells one."""

from typing import Final, Literal
from urllib.parse import quote

PREFIX: Final = "dr.v1"

JOBS: Final = "JOBS"
WORK: Final = "WORK"
RESULTS: Final = "RESULTS"
DEAD: Final = "DEAD"
INPUTS: Final = "INPUTS"
RECORDS: Final = "records"
PLACEMENT: Final = "placement"
"""Bucket of what each process shall hold: by the name of a process, or of a service for all of its
processes."""
MODELS: Final = "models"
"""Bucket of the models that were added and removed while fleets ran."""
SERVED: Final = "served"
"""The key there."""

ALL_SUBMITS: Final = f"{PREFIX}.submit.*"
ALL_WORK: Final = f"{PREFIX}.work.>"
ALL_RESULTS: Final = f"{PREFIX}.result.>"
ALL_DEAD: Final = f"{PREFIX}.dead.*"
ALL_INPUTS: Final = f"{PREFIX}.input.>"
ALL_CANCELS: Final = f"{PREFIX}.cancel.*"
ALL_METRICS: Final = f"{PREFIX}.metrics"
ALL_LOADS: Final = f"{PREFIX}.load.*"
ALL_WAITING: Final = f"{PREFIX}.waiting.*"
CHANGED_MODELS: Final = f"{PREFIX}.models"
"""Models were added or removed."""
PLACED: Final = f"{PREFIX}.placement"
"""Something in the bucket of that name is another than it was."""

PLANNERS: Final = "planner"
"""Queue group, and the durable consumer of JOBS, that all planners share."""


def token(name: str) -> str:
    """`name` as one subject token: reversible, without dots, wildcards, slashes or spaces."""
    return quote(name, safe="~@").replace(".", "%2E")


def submit(job_id: str) -> str:
    return f"{PREFIX}.submit.{job_id}"


def work(kind: str, model: str, service_class: str, job_id: str, node: str, attempt: int) -> str:
    """One attempt of one node. The attempt is part of the name, so that a node which has to run
    again can be published before the message of its earlier attempt is acknowledged."""
    return f"{PREFIX}.work.{kind}.{token(model)}.{service_class}.{job_id}.{node}@{attempt}"


def work_filter(kind: str, model: str, service_class: str) -> str:
    return f"{PREFIX}.work.{kind}.{token(model)}.{service_class}.*.*"


def work_queue(kind: str, model: str) -> str:
    """Wildcard over all classes of one model's queue."""
    return f"{PREFIX}.work.{kind}.{token(model)}.>"


def work_consumer(kind: str, model: str, service_class: str) -> str:
    """Durable consumer name of one queue of work."""
    return f"{kind}-{token(model)}-{service_class}"


def result(job_id: str) -> str:
    """The job's one outcome."""
    return f"{PREFIX}.result.{job_id}"


def image_result(job_id: str, index: int) -> str:
    """The job's image number `index`."""
    return f"{PREFIX}.result.{job_id}.{index}"


def results(job_id: str) -> str:
    """Wildcard over all images of a job (not its outcome)."""
    return f"{PREFIX}.result.{job_id}.*"


def dead(job_id: str) -> str:
    return f"{PREFIX}.dead.{job_id}"


def event(job_id: str) -> str:
    return f"{PREFIX}.event.{job_id}"


def cancel(job_id: str) -> str:
    return f"{PREFIX}.cancel.{job_id}"


def preview(model: str) -> str:
    """Running latents that some vae process may turn into a preview; lossy."""
    return f"{PREFIX}.preview.{token(model)}"


def control(model: str) -> str:
    """One step of a ControlNet, for whichever process holds it."""
    return f"{PREFIX}.control.{token(model)}"


def assist(model: str) -> str:
    """One half of a step, for whichever denoiser of the model has nothing else to do."""
    return f"{PREFIX}.assist.{token(model)}"


def job_input(job_id: str, name: int | Literal["image", "mask"]) -> str:
    """An image that the job came with: a number is that of the control that it belongs to."""
    return f"{PREFIX}.input.{job_id}.{name}"


def load(process: str) -> str:
    """What a process has in hand and how fast it is, or a planner has promised; lossy."""
    return f"{PREFIX}.load.{token(process)}"


def waiting(job_id: str) -> str:
    """A question to whichever planner holds the job in its backlog; the others do not answer."""
    return f"{PREFIX}.waiting.{job_id}"


def release(arena: str) -> str:
    return f"{PREFIX}.release.{arena}"


def job_of_work(subject: str) -> str:
    """The job id in a work subject."""
    return subject.split(".")[6]


def job_of(subject: str) -> str:
    """The job id in a submit, result, event, cancel or dead subject."""
    return subject.split(".")[3]
