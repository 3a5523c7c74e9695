"""Edits of what a mask shows, as diffusers' inpaint pipelines draw them."""

from collections.abc import Sequence
from typing import Any, Final

import diffusers
import msgspec
import torch
from PIL import Image

from services.vae.source_image import SourceImage, read_source_image
from shared.jobs.graph import image_parameters
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, JobSpec
from shared.models.catalogue import Catalogue

PIPELINES: Final = {
    "FluxPipeline": "FluxInpaintPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInpaintPipeline",
}
"""By the pipeline that draws from noise alone."""


class EditJob(JobSpec, frozen=True, kw_only=True):
    """A job that edits what a mask shows of an image, with the files of both."""

    image: bytes
    mask: bytes


def edit_job(request: GenerationRequest, catalogue: Catalogue) -> EditJob:
    """Of a request that brings an image, and a mask in a file of its own. Raises `InvalidRequest`,
    or `ValueError` if it does not."""
    if request.image is None or request.mask is None:
        raise ValueError(f"{request.job_id} brings no image, or no mask")
    spec = validate(request, catalogue)
    return EditJob(**msgspec.structs.asdict(spec), image=request.image, mask=request.mask)


def inpainter(pipeline: Any, **extra: Any) -> Any:
    """The inpaint pipeline of the same parts as `pipeline`."""
    found = getattr(diffusers, PIPELINES[type(pipeline).__name__])(**pipeline.components, **extra)
    found.set_progress_bar_config(disable=True)
    return found


def source_images_of(specs: Sequence[JobSpec]) -> list[SourceImage]:
    """Of those that are edits; all of a batch are, or none."""
    edits = [spec for spec in specs if isinstance(spec, EditJob)]
    return [read_source_image(image_parameters(spec), spec.image, spec.mask) for spec in edits]


def edit_arguments(sources: Sequence[SourceImage], spec: JobSpec) -> dict[str, Any]:
    """The arguments of an inpaint pipeline for `sources`, and what their jobs agree on."""
    if spec.edit is None:
        return {}
    masks = [source.mask.numpy() for source in sources if source.mask is not None]
    return {
        "image": [Image.fromarray(source.pixels.numpy()) for source in sources],
        "mask_image": [Image.fromarray(mask) for mask in masks],
        "strength": spec.edit.strength,
    }


def kept(drawn: Sequence[torch.Tensor], sources: Sequence[SourceImage]) -> list[torch.Tensor]:
    """What was drawn where the masks show it, the source images everywhere else."""
    if not sources:
        return list(drawn)
    pairs = zip(drawn, sources, strict=True)
    return [_over(pixels, source) for pixels, source in pairs]


def _over(pixels: torch.Tensor, source: SourceImage) -> torch.Tensor:
    assert source.mask is not None  # or it would be no edit of what a mask shows
    return torch.where(source.mask[..., None], pixels, source.pixels)
