"""The image and the mask of an edit, as the autoencoder's process left them."""

from services.denoiser.sampling.initial_latents import SourceImage, content_digest
from shared.jobs.graph import IMAGE
from shared.messages.nodes import Denoise
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport
from shared.worker.task import Task


def source_image(task: Task, transport: Transport) -> SourceImage | None:
    """What the row of a task begins from; None: from noise alone."""
    beginning = task.parameters(Denoise).beginning
    if beginning is None:
        return None
    inputs = task.inputs(IMAGE)
    mean, std = (get_tensor(transport, inputs[name])[None] for name in ("image_mean", "image_std"))
    if not beginning.masked:
        return SourceImage(mean, std)
    mask = get_tensor(transport, inputs["image_mask"])[None]
    found = None
    if beginning.mask_mode == "cached":
        found = content_digest(mean, std)
    return SourceImage(mean, std, mask, pure=beginning.strength == 1.0, digest=found)
