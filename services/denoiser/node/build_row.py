"""From a `denoise` task to the row that the engine runs."""

import logging
from collections.abc import Iterable

from services.denoiser.node.model import Model
from services.denoiser.node.source_image import source_image
from services.denoiser.rows.extension import RowExtension
from services.denoiser.rows.row import Row
from services.denoiser.sampling.schedule_part import SchedulePart
from shared.errors import HandleLost, InvalidRequest
from shared.jobs.edits import left_out
from shared.jobs.graph import NEGATIVE, TEXTS
from shared.messages.nodes import Denoise
from shared.models.contracts.network import Conditioning
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport
from shared.worker.task import Task

log = logging.getLogger(__name__)


def build_row(
    task: Task, model: Model, extensions: Iterable[RowExtension], transport: Transport
) -> Row:
    """The row of `task` with `extensions` and what the model's features extend it by, at its last
    checkpoint if that can be read. Raises `HandleLost` if its embeddings or its image cannot be
    read, and `InvalidRequest` as the step table and the row do. Blocks: a tensor may come from
    another host, and a step table that is new here takes up to 0.2 s to build."""
    asked, job = task.parameters(Denoise), task.spec
    inputs = task.inputs(TEXTS)
    family = model.sampling.family
    texts = tuple(
        {name: inputs[f"{prefix}{name}"] for name in family.conditioning}
        for prefix in ((NEGATIVE, "") if asked.guided else ("",))
    )
    scalars = family.scalars(asked.width, asked.height, asked.guidance)
    halves = [
        Conditioning.of_one({n: get_tensor(transport, h) for n, h in one.items()}, scalars)
        for one in texts
    ]
    start = left_out(asked, family.rounds_up)
    part = SchedulePart(asked.start, asked.end)
    size = asked.width, asked.height
    table = model.sampling.table(asked.sampler, asked.steps, *size, start, part)
    image = source_image(task, model.sampling.latents(*size), transport)
    row = Row(
        job_id=task.job_id,
        node=task.node.name,
        index=task.node.index,
        seed=asked.seed,
        table=table,
        shape=model.sampling.latents(*size),
        image=image,
        cond=halves[-1],
        uncond=halves[0] if asked.guided else None,
        guidance=asked.guidance if asked.guided else 1.0,
        service_class=job.service_class,
        deadline=job.deadline,
        wanted_by=job.wanted_by,
        previews=preview_steps(job.previews, table.steps),
        texts=texts,
        extensions=tuple(extensions),
    )
    row = _resumed(task, row, transport)
    for feature in model.features:
        found = feature.extend(task, row, image)
        if found is not None:
            row.extensions = (*row.extensions, found)
    return row


def _resumed(task: Task, row: Row, transport: Transport) -> Row:
    """`row` where its last checkpoint left it; at its start if there is none to be read."""
    checkpoint = task.state.checkpoint
    if checkpoint is None:
        return row
    try:
        tensors = {n: get_tensor(transport, h) for n, h in checkpoint.tensors.items()}
        resumed = row.resume(checkpoint.step, tensors)
    except (HandleLost, InvalidRequest) as error:
        log.warning("the checkpoint at step %d is of no use: %s", checkpoint.step, error)
        return row
    task.approximations.update(checkpoint.approximations)
    task.warnings.update(checkpoint.warnings)
    log.info("resumed at step %d", checkpoint.step)
    return resumed


def preview_steps(previews: int, steps: int) -> frozenset[int]:
    """Evenly spaced, neither at the very start nor at the end."""
    return frozenset(max(1, steps * (i + 1) // (previews + 1)) for i in range(previews))
