"""From a `denoise` task to the row that the engine runs."""

import logging

import torch

from services.denoiser.controlnet.state import ControlState, ControlUse
from services.denoiser.mask_cache.key import digest
from services.denoiser.node.model import Model
from services.denoiser.rows.extension import RowExtension
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from shared.errors import HandleLost, InvalidRequest
from shared.jobs.edits import taken
from shared.jobs.graph import NEGATIVE
from shared.messages import JobSpec
from shared.models.contracts.network import Conditioning
from shared.models.lowrank.bank import Use
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport
from shared.worker.task import Task, Tensors

log = logging.getLogger(__name__)


def build_row(
    task: Task,
    model: Model,
    adapters: tuple[Use, ...],
    transport: Transport,
    late: RowExtension | None = None,
) -> Row:
    """The row of `task` with `adapters` (`late`: what brings others later), at its last checkpoint
    if that can be read. If its masks are cached a template is looked up, unless the task is
    suspect, or has adapters or ControlNets. Raises `HandleLost` if its embeddings or its image
    cannot be read, and `InvalidRequest` as the step table and the row do. Blocks: a tensor may come
    from another host, and a step table that is new here takes up to 0.2 s to build."""
    spec, index = task.spec, task.node.index
    inputs = task.inputs
    family, start = model.sampling.family, 0
    texts = tuple(
        {name: inputs[f"{prefix}{name}"] for name in family.conditioning}
        for prefix in ((NEGATIVE, "") if spec.guided else ("",))
    )
    if spec.edit is not None:
        start = spec.steps - taken(spec.steps, spec.edit.strength, family.rounds_up)
    numbers = family.numbers(spec.width, spec.height, spec.guidance)
    halves = [
        Conditioning.of_one({n: get_tensor(transport, h) for n, h in one.items()}, numbers)
        for one in texts
    ]
    table = model.sampling.table(spec.sampler, spec.steps, spec.width, spec.height, start)
    image = _image(spec, inputs, transport)
    row = Row.begin(
        job_id=task.job_id,
        node=task.node.name,
        index=index,
        seed=spec.seed + index,
        table=table,
        shape=model.sampling.latents(spec.width, spec.height),
        image=image,
        cond=halves[-1],
        uncond=halves[0] if spec.guided else None,
        guidance=spec.guidance if spec.guided else 1.0,
        service_class=spec.service_class,
        deadline=spec.deadline,
        adapters=adapters,
        previews=preview_steps(spec.previews, table.steps),
        texts=texts,
    )
    row = _resumed(task, row, transport)
    features = [late, _steered(spec, inputs)]
    task.approximations.update(*(adapter.said for adapter, _ in adapters))
    plain = not (spec.loras or spec.controls or task.suspect)
    if model.templates is not None and image is not None and image.digest is not None and plain:
        features.append(model.templates.masked(row, image, start))
    row.extensions = tuple(feature for feature in features if feature is not None)
    return row


def _image(spec: JobSpec, inputs: Tensors, transport: Transport) -> SourceImage | None:
    """What it begins from; None: from noise alone."""
    if spec.edit is None:
        return None
    mean, std = (get_tensor(transport, inputs[name])[None] for name in ("image_mean", "image_std"))
    if not spec.edit.masked:
        return SourceImage(mean, std)
    mask = get_tensor(transport, inputs["image_mask"])[None]
    found = None
    if spec.edit.mask_mode == "cached":
        found = digest(torch.cat([mean, std]).numpy().tobytes())
    return SourceImage(mean, std, mask, pure=spec.edit.strength == 1.0, digest=found)


def _steered(spec: JobSpec, inputs: Tensors) -> ControlState | None:
    if not spec.controls:
        return None
    return ControlState(
        controls=tuple(
            ControlUse(
                model=control.model,
                hint=inputs[f"hint-{k}"],
                scale=control.scale,
                start=control.start,
                end=control.end,
                guess_mode=control.guess_mode,
            )
            for k, control in enumerate(spec.controls)
        ),
        lag=spec.control_lag > 0,
    )


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
