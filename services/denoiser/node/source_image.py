"""The image and the mask of an edit, as the autoencoder's process left them."""

from services.denoiser.sampling.initial_latents import SourceImage, content_digest
from shared.errors import InvalidRequest
from shared.jobs.graph import IMAGE, LATENTS
from shared.messages.nodes import Denoise
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport
from shared.worker.task import Task


def source_image(
    task: Task, shape: tuple[int, int, int], transport: Transport
) -> SourceImage | None:
    """What the row of a task begins from; None: from noise alone. `shape`: of its latents. Raises
    `InvalidRequest` if it does not begin from such latents, or cannot begin where it should."""
    asked = task.parameters(Denoise)
    beginning = asked.beginning
    if beginning is None:
        if asked.start > 0.0:
            raise InvalidRequest("start", asked.start, "0 for what begins from noise alone")
        return None
    inputs = task.inputs(IMAGE)
    if LATENTS in inputs:
        if beginning.masked:
            raise InvalidRequest("mask", "a mask", "none for what begins from latents")
        latents = get_tensor(transport, inputs[LATENTS])
        if latents.shape != shape:
            raise InvalidRequest("image", tuple(latents.shape), f"latents of {shape}")
        return SourceImage(latents[None], None, noised=asked.start == 0.0)
    if asked.start > 0.0:
        raise InvalidRequest("start", asked.start, "0 for what begins from an image's own latents")
    mean, std = (get_tensor(transport, inputs[name])[None] for name in ("image_mean", "image_std"))
    if not beginning.masked:
        return SourceImage(mean, std)
    mask = get_tensor(transport, inputs["image_mask"])[None]
    found = None
    if beginning.mask_mode == "cached":
        found = content_digest(mean, std)
    return SourceImage(mean, std, mask, pure=beginning.strength == 1.0, digest=found)
