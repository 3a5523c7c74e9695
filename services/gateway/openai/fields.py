"""What the HTTP API reads: the body of `POST /v1/images/generations`, and its bounds in words.

Shapes and names are those of OpenAI's Images API. Each field's `extra["allowed"]` is what an error
about it says; its description goes into `/openapi.json`. `kinds/` has the types of the fields.
"""

from typing import Annotated, Any, Final, get_type_hints

from services.gateway.openai.ignored import IgnoredFields
from services.gateway.openai.kinds.edits import Fidelity, MaskModes, Strength
from services.gateway.openai.kinds.generation import (
    Background,
    Class,
    Compression,
    ControlLag,
    Controls,
    Count,
    Deadline,
    Extra,
    Guidance,
    LateSteps,
    Loras,
    ModelId,
    Moderation,
    NegativePrompt,
    OutputFormat,
    OutputQuality,
    PartialImages,
    Prompt,
    Quality,
    ResponseFormat,
    Sampler,
    Seed,
    Steps,
    Stream,
    User,
)
from services.gateway.openai.kinds.meta import alias_of, allowed_of, image_alias_of, metadata_of
from services.gateway.openai.kinds.sizes import (
    AspectRatio,
    Height,
    ImageSizes,
    Megapixels,
    Resolution,
    Size,
    Width,
)
from shared.jobs.travel import MAX_UPLOAD_BYTES
from shared.media.masks import ALLOWED as MASK
from shared.media.reader import MAX_PIXELS

STEPS_FACTOR: Final[dict[str, float]] = {"low": 0.5, "medium": 1.0, "high": 1.5}
"""Denoising steps per quality, as a multiple of the model's default steps."""


class ImagesRequest(IgnoredFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/images/generations`. A field that is null or absent takes its default;
    a field that is not listed here is refused."""

    prompt: Prompt
    model: ModelId | None = None
    n: Count | None = None
    size: Size | None = None
    quality: Quality | None = None
    response_format: ResponseFormat | None = None
    output_format: OutputFormat | None = None
    output_compression: Compression | None = None
    background: Background | None = None
    moderation: Moderation | None = None
    user: User | None = None
    stream: Stream | None = None
    partial_images: PartialImages | None = None
    negative_prompt: NegativePrompt | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    sampler: Sampler | None = None
    seed: Seed | None = None
    loras: Loras | None = None
    lora_late_steps: LateSteps | None = None
    controls: Controls | None = None
    control_lag: ControlLag | None = None
    service_class: Class | None = None
    deadline: Deadline | None = None

    width: Width | None = None
    height: Height | None = None
    steps: Annotated[Steps, alias_of("num_inference_steps", Steps)] | None = None
    cfg_scale: Annotated[Guidance, alias_of("guidance_scale", Guidance)] | None = None
    guidance: Annotated[Guidance, alias_of("guidance_scale", Guidance)] | None = None
    sampler_name: Annotated[Sampler, alias_of("sampler", Sampler)] | None = None
    scheduler: Annotated[Sampler, alias_of("sampler", Sampler)] | None = None
    batch_size: Annotated[Count, alias_of("n", Count)] | None = None
    num_images: Annotated[Count, alias_of("n", Count)] | None = None
    num_images_per_prompt: Annotated[Count, alias_of("n", Count)] | None = None
    num_outputs_per_prompt: Annotated[Count, alias_of("n", Count)] | None = None
    num_outputs: Annotated[Count, alias_of("n", Count)] | None = None
    num_samples: Annotated[Count, alias_of("n", Count)] | None = None
    samples: Annotated[Count, alias_of("n", Count)] | None = None
    num_steps: Annotated[Steps, alias_of("num_inference_steps", Steps)] | None = None
    cfg: Annotated[Guidance, alias_of("guidance_scale", Guidance)] | None = None
    sampler_index: Annotated[Sampler, alias_of("sampler", Sampler)] | None = None
    negative: Annotated[NegativePrompt, alias_of("negative_prompt", NegativePrompt)] | None = None
    image_size: ImageSizes | None = None
    aspect_ratio: AspectRatio | None = None
    megapixels: Megapixels | None = None
    resolution: Resolution | None = None
    output_quality: OutputQuality | None = None
    extra_body: Extra | None = None


IMAGE_NAMES: Final = (
    ("images", "image_url", "image_urls", "input_image", "init_image", "init_images"),
    ("mask_url", "mask_image"),
)
"""What clients call an edit's image, and its mask."""


class EditsRequest(ImagesRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/images/edits` (multipart/form-data), but for its files `image` and `mask`.
    `loras` and `controls` are JSON texts."""

    strength: Strength | None = None
    mask_mode: MaskModes | None = None
    input_fidelity: Fidelity | None = None
    denoising_strength: Annotated[Strength, alias_of("strength", Strength)] | None = None
    prompt_strength: Annotated[Strength, alias_of("strength", Strength)] | None = None

    images: Annotated[Any, image_alias_of("image")] = None
    image_url: Annotated[Any, image_alias_of("image")] = None
    image_urls: Annotated[Any, image_alias_of("image")] = None
    input_image: Annotated[Any, image_alias_of("image")] = None
    init_image: Annotated[Any, image_alias_of("image")] = None
    init_images: Annotated[Any, image_alias_of("image")] = None
    mask_url: Annotated[Any, image_alias_of("mask")] = None
    mask_image: Annotated[Any, image_alias_of("mask")] = None


def _all_allowed(struct: type[ImagesRequest]) -> dict[str, str]:
    return {
        name: allowed_of(hint) for name, hint in get_type_hints(struct, include_extras=True).items()
    }


def _aliases(struct: type[ImagesRequest]) -> dict[str, str]:
    found = {
        name: (metadata_of(hint)[-1].extra or {}).get("alias_of")
        for name, hint in get_type_hints(struct, include_extras=True).items()
    }
    return {name: field for name, field in found.items() if field is not None}


FILE_FIELDS: Final[dict[str, str]] = {
    "image": f"one png, jpeg or webp file of at most {MAX_UPLOAD_BYTES} bytes (together with the "
    f"mask) and {MAX_PIXELS} pixels",
    "mask": f"one png, jpeg or webp file of the image's size: {MASK}",
}
IMAGE_ALIASES: Final = {
    **dict.fromkeys(IMAGE_NAMES[0], "image"),
    **dict.fromkeys(IMAGE_NAMES[1], "mask"),
}
"""What clients call the images of an edit."""
ALLOWED: Final[dict[str, str]] = _all_allowed(ImagesRequest)
"""Per field of `ImagesRequest`, in words,"""
ALLOWED_IN_EDITS: Final[dict[str, str]] = {**_all_allowed(EditsRequest), **FILE_FIELDS}
"""and of an edit."""
ALIASES: Final[dict[str, str]] = _aliases(EditsRequest)
"""What image clients call fields of ours."""
