"""The image and the mask of an edit, as the autoencoder's process left them."""

from services.denoiser.sampling.initial_latents import SourceImage, content_digest
from shared.messages import JobSpec
from shared.tensors.torch_io import get_tensor
from shared.tensors.transport import Transport
from shared.worker.task import Tensors


def source_image(spec: JobSpec, inputs: Tensors, transport: Transport) -> SourceImage | None:
    """What the rows of a job begin from; None: from noise alone."""
    if spec.edit is None:
        return None
    mean, std = (get_tensor(transport, inputs[name])[None] for name in ("image_mean", "image_std"))
    if not spec.edit.masked:
        return SourceImage(mean, std)
    mask = get_tensor(transport, inputs["image_mask"])[None]
    found = None
    if spec.edit.mask_mode == "cached":
        found = content_digest(mean, std)
    return SourceImage(mean, std, mask, pure=spec.edit.strength == 1.0, digest=found)
