"""What the HTTP API reads: the body of `POST /v1/images/generations`, and its bounds in words.

Shapes and names are those of OpenAI's Images API. Each field's `extra["allowed"]` is what an error
about it says; its description goes into `/openapi.json`.
"""

from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from services.gateway.openai.ignored import IgnoredFields
from shared.jobs.edits import IMAGE_STRENGTH, MASK_MODES, MASKED_STRENGTH
from shared.jobs.travel import MAX_UPLOAD_BYTES
from shared.jobs.validate import (
    MAX_CONTROL_LAG,
    MAX_CONTROL_SCALE,
    MAX_CONTROLS,
    MAX_IMAGES,
    MAX_LORA_SCALE,
    MAX_LORAS,
    MAX_PREVIEWS,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    MAX_USER_CHARACTERS,
    RANDOM_SEED,
)
from shared.media.masks import ALLOWED as MASK
from shared.media.reader import MAX_PIXELS
from shared.messages import ImageFormat, ServiceClass
from shared.models.settings import MAX_GUIDANCE, MAX_STEPS

MAX_DEADLINE: Final = 24 * 3600
"""Seconds; results are kept no longer."""
STEPS_FACTOR: Final[dict[str, float]] = {"low": 0.5, "medium": 1.0, "high": 1.5}
"""Denoising steps per quality, as a multiple of the model's default steps."""


def _field(about: str, allowed: str) -> Meta:
    return Meta(description=_sentence(about, allowed), extra={"allowed": allowed})


def _number(about: str, least: int, most: int, kind: str = "a whole number") -> Meta:
    allowed = f"{kind} from {least} to {most}"
    return Meta(
        description=_sentence(about, allowed), extra={"allowed": allowed}, ge=least, le=most
    )


def _text(about: str, least: int, most: int) -> Meta:
    allowed = f"text of {least} to {most} characters"
    return Meta(
        description=_sentence(about, allowed),
        extra={"allowed": allowed},
        min_length=least,
        max_length=most,
    )


def _metadata(hint: Any) -> tuple[Meta, ...]:
    """Of `Annotated[kind, meta]`, or of `Annotated[kind, meta] | None`."""
    annotated = hint if hasattr(hint, "__metadata__") else get_args(hint)[0]
    found: tuple[Meta, ...] = annotated.__metadata__
    return found


def _allowed(hint: Any) -> str:
    [own, *_] = _metadata(hint)
    return str((own.extra or {})["allowed"])


def _sentence(about: str, allowed: str) -> str:
    return f"{about} Allowed: {allowed}."


class Lora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA, and how strongly it counts. Exactly one of `name` (see GET /v1/models), `path` (a
    file below the server's LoRA directories), `hub` (owner/repo[@revision][:file.safetensors]) and
    `url` says which; what is fetched has to come from where the server allows. `sha256`: of the
    file, if it has to be that one. A file of which some tensors have no use is refused, or with
    `partial` used without them: the answer names them among its approximations."""

    name: str | None = None
    path: str | None = None
    hub: str | None = None
    url: str | None = None
    sha256: str | None = None
    scale: float = 1.0
    partial: bool = False


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ControlNet by its name (see GET /v1/models), the picture it steers by, and how strongly and
    in which part of the steps. `guess_mode`: for prompts that say nothing of the picture."""

    model: str
    image: str
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    guess_mode: bool = False


class ImageSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A size as an object."""

    width: Annotated[int, Meta(ge=1, le=65_535)]
    height: Annotated[int, Meta(ge=1, le=65_535)]


Prompt = Annotated[str, _text("What to draw.", 1, MAX_PROMPT_CHARACTERS)]
NegativePrompt = Annotated[str, _text("What to steer away from.", 0, MAX_PROMPT_CHARACTERS)]
ModelId = Annotated[
    str, _field("Default: the first of GET /v1/models.", "a model's id, or one of its aliases")
]
Count = Annotated[int, _number("How many images; image i is drawn from seed + i.", 1, MAX_IMAGES)]
Size = Annotated[
    str,
    _field("Default: the model's own.", '"auto" or "WIDTHxHEIGHT" within the model\'s limits'),
]
Quality = Annotated[
    Literal["auto", "low", "medium", "high", "standard", "hd"],
    _field(
        "How many denoising steps: low takes half of the model's default, medium and standard the "
        "default, high and hd one and a half times the default. auto, the default, leaves it to "
        "num_inference_steps, beside which no other value has an effect.",
        '"auto", "low", "medium", "high", "standard" or "hd"',
    ),
]
ResponseFormat = Annotated[
    Literal["b64_json", "url"],
    _field(
        "Default: b64_json. A url is served by this gateway for a day; a stream always carries "
        "b64_json.",
        '"b64_json" or "url"',
    ),
]
OutputFormat = Annotated[
    ImageFormat,
    _field(
        "Default: png, or jpeg for images whose png may be too large for the bus; the answer says "
        "which.",
        '"png", "jpeg" or "webp"',
    ),
]
Compression = Annotated[
    int, _number("Quality of jpeg and webp; png is lossless and takes 100.", 0, 100)
]
Background = Annotated[
    Literal["auto", "opaque"], _field("Pictures are opaque.", '"auto" or "opaque"')
]
Moderation = Annotated[
    Literal["auto", "low"],
    _field("For clients that send it; nothing is moderated here.", '"auto" or "low"'),
]
User = Annotated[str, _text("Who asks; kept with the job.", 0, MAX_USER_CHARACTERS)]
Stream = Annotated[bool, _field("Whether to answer with server-sent events.", "true or false")]
PartialImages = Annotated[
    int, _number("Previews of each running image; needs stream.", 0, MAX_PREVIEWS)
]
Steps = Annotated[int, _number("Denoising steps. Default: the model's own.", 1, MAX_STEPS)]
Guidance = Annotated[
    float,
    _number(
        "Classifier-free guidance; 1 and below: none. Default: the model's own.",
        0,
        int(MAX_GUIDANCE),
        kind="a number",
    ),
]
Sampler = Annotated[
    str,
    _field("Default: the model's own.", "one of the model's samplers (see GET /v1/models)"),
]
Seed = Annotated[
    int,
    _number(
        "The same seed and settings give the same picture. -1 is a random one, as is the default.",
        RANDOM_SEED,
        MAX_SEED - MAX_IMAGES,
    ),
]
Loras = Annotated[
    list[Lora],
    _field(
        "LoRAs to paint with.",
        f'a list of up to {MAX_LORAS} objects {{"name": ..., "scale": ...}}, with names from GET '
        '/v1/models, or with "path", "hub" or "url" instead, and "sha256" if you like; scales '
        f'(default 1) from {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}; with "partial": true a '
        "LoRA is used though some of its tensors have no use",
    ),
]
LateSteps = Annotated[
    int,
    _number(
        "Steps that may be taken while the LoRAs are still being loaded: sooner done, but not "
        "exactly the same picture; the result says what joined late. Default: 0, none.",
        0,
        MAX_STEPS,
    ),
]
IMAGE: Final = "a png, jpeg or webp file in base64, bare or as a data URL"
Controls = Annotated[
    list[Control],
    _field(
        "ControlNets to steer by, each with a picture.",
        f'a list of up to {MAX_CONTROLS} objects {{"model": ..., "image": ..., "scale": ..., '
        '"start": ..., "end": ..., "guess_mode": ...}, with models from the controls in GET '
        f"/v1/models, images that are {IMAGE}, together at most {MAX_UPLOAD_BYTES} bytes, scales "
        f"(default 1) from {-MAX_CONTROL_SCALE:g} to {MAX_CONTROL_SCALE:g}, a start (default 0) "
        "and a later end (default 1) from 0 to 1",
    ),
]
ControlLag = Annotated[
    int,
    _number(
        "Steps by which the ControlNets may lag behind: sooner done, but not exactly the same "
        "picture. Default: 0, none.",
        0,
        MAX_CONTROL_LAG,
    ),
]
Class = Annotated[
    ServiceClass,
    _field(
        "Interactive jobs go first, batch jobs last. Default: standard.",
        '"interactive", "standard" or "batch"',
    ),
]
Strength = Annotated[
    float,
    _field(
        "How much of the image is given up: the share of the steps that are taken. Default: "
        f"{MASKED_STRENGTH:g} with a mask, {IMAGE_STRENGTH:g} without one.",
        "a number above 0, up to 1",
    ),
]
MaskModes = Annotated[
    str,
    _field(
        "How what the mask keeps is computed. cached: it may be taken from an earlier edit of the "
        "same image, which is faster and not exact. Default: exact.",
        "one of " + ", ".join(MASK_MODES),
    ),
]
Fidelity = Annotated[
    Literal["high", "low"],
    _field("For clients that send it; strength says how much is kept.", '"high" or "low"'),
]
Deadline = Annotated[
    float,
    Meta(
        description=_sentence(
            "Seconds from now after which the images are of no use: the job then fails with "
            "deadline_exceeded, wherever it is. Default: none.",
            f"a number above 0, up to {MAX_DEADLINE}",
        ),
        extra={"allowed": f"a number above 0, up to {MAX_DEADLINE}"},
        gt=0,
        le=MAX_DEADLINE,
    ),
]


MAX_SIDE: Final = 65_535
Width = Annotated[
    int,
    _number("Pixels; beside size, what it says. Default: the model's own.", 1, MAX_SIDE),
]
Height = Annotated[
    int,
    _number("Pixels; beside size, what it says. Default: the model's own.", 1, MAX_SIDE),
]
ImageSizes = Annotated[
    str | ImageSize,
    _field(
        "The size, as other clients send it.",
        'as size, or an object {"width": ..., "height": ...}, a name such as "landscape_4_3" or '
        '"square_hd", or "1K", "2K", "4K" for as many pixels as a square of 1024 times that has',
    ),
]
AspectRatio = Annotated[
    str,
    _field(
        "The image's shape; without a size, it has about as many pixels as the model's own.",
        'WIDTH:HEIGHT such as "16:9", or "auto"',
    ),
]
Megapixels = Annotated[
    str,
    _field(
        "How many pixels, in units of 1024 x 1024; the shape is aspect_ratio's or the model's own.",
        'a number above 0 such as 0.25 or "1", or "match_input"',
    ),
]
Resolution = Annotated[
    str,
    _field(
        "How many pixels; the shape is aspect_ratio's or the model's own.",
        '"WIDTHxHEIGHT", or an area such as "0.5 MP", "1K" or "2K", or "auto"',
    ),
]
OutputQuality = Annotated[
    int,
    _number("output_compression of a jpeg or webp; without effect on a png.", 0, 100),
]
Extra = Annotated[
    dict[str, Any],
    _field("Fields of this body; for clients that send those beside OpenAI's so.", "an object"),
]


def _alias(name: str, kind: Any) -> Meta:
    """Of the field `name`, which is of this (annotated) `kind`."""
    about = _sentence(f"Another name of {name}.", _allowed(kind))
    return Meta(description=about, extra={"alias_of": name})


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
    steps: Annotated[Steps, _alias("num_inference_steps", Steps)] | None = None
    cfg_scale: Annotated[Guidance, _alias("guidance_scale", Guidance)] | None = None
    guidance: Annotated[Guidance, _alias("guidance_scale", Guidance)] | None = None
    sampler_name: Annotated[Sampler, _alias("sampler", Sampler)] | None = None
    scheduler: Annotated[Sampler, _alias("sampler", Sampler)] | None = None
    batch_size: Annotated[Count, _alias("n", Count)] | None = None
    num_images: Annotated[Count, _alias("n", Count)] | None = None
    num_images_per_prompt: Annotated[Count, _alias("n", Count)] | None = None
    num_outputs_per_prompt: Annotated[Count, _alias("n", Count)] | None = None
    num_outputs: Annotated[Count, _alias("n", Count)] | None = None
    num_samples: Annotated[Count, _alias("n", Count)] | None = None
    samples: Annotated[Count, _alias("n", Count)] | None = None
    num_steps: Annotated[Steps, _alias("num_inference_steps", Steps)] | None = None
    cfg: Annotated[Guidance, _alias("guidance_scale", Guidance)] | None = None
    sampler_index: Annotated[Sampler, _alias("sampler", Sampler)] | None = None
    negative: Annotated[NegativePrompt, _alias("negative_prompt", NegativePrompt)] | None = None
    image_size: ImageSizes | None = None
    aspect_ratio: AspectRatio | None = None
    megapixels: Megapixels | None = None
    resolution: Resolution | None = None
    output_quality: OutputQuality | None = None
    extra_body: Extra | None = None


PICTURES: Final = (
    ("images", "image_url", "image_urls", "input_image", "init_image", "init_images"),
    ("mask_url", "mask_image"),
)
"""What clients call an edit's image, and its mask."""


def _picture(name: str) -> Meta:
    allowed = f"what {name} allows"
    about = _sentence(f"Another name of {name}.", allowed)
    return Meta(description=about, extra={"allowed": allowed})


class EditsRequest(ImagesRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/images/edits` (multipart/form-data), but for its files `image` and `mask`.
    `loras` and `controls` are JSON texts."""

    strength: Strength | None = None
    mask_mode: MaskModes | None = None
    input_fidelity: Fidelity | None = None
    denoising_strength: Annotated[Strength, _alias("strength", Strength)] | None = None
    prompt_strength: Annotated[Strength, _alias("strength", Strength)] | None = None

    images: Annotated[Any, _picture("image")] = None
    image_url: Annotated[Any, _picture("image")] = None
    image_urls: Annotated[Any, _picture("image")] = None
    input_image: Annotated[Any, _picture("image")] = None
    init_image: Annotated[Any, _picture("image")] = None
    init_images: Annotated[Any, _picture("image")] = None
    mask_url: Annotated[Any, _picture("mask")] = None
    mask_image: Annotated[Any, _picture("mask")] = None


def _all_allowed(struct: type[ImagesRequest]) -> dict[str, str]:
    return {
        name: _allowed(hint) for name, hint in get_type_hints(struct, include_extras=True).items()
    }


def _aliases(struct: type[ImagesRequest]) -> dict[str, str]:
    told = {
        name: (_metadata(hint)[-1].extra or {}).get("alias_of")
        for name, hint in get_type_hints(struct, include_extras=True).items()
    }
    return {name: field for name, field in told.items() if field is not None}


FILE_FIELDS: Final[dict[str, str]] = {
    "image": f"one png, jpeg or webp file of at most {MAX_UPLOAD_BYTES} bytes (together with the "
    f"mask) and {MAX_PIXELS} pixels",
    "mask": f"one png, jpeg or webp file of the image's size: {MASK}",
}
PICTURE_ALIASES: Final = {
    **dict.fromkeys(PICTURES[0], "image"),
    **dict.fromkeys(PICTURES[1], "mask"),
}
"""What clients call the pictures of an edit."""
ALLOWED: Final[dict[str, str]] = _all_allowed(ImagesRequest)
"""Per field of `ImagesRequest`, in words,"""
ALLOWED_IN_EDITS: Final[dict[str, str]] = {**_all_allowed(EditsRequest), **FILE_FIELDS}
"""and of an edit."""
ALIASES: Final[dict[str, str]] = _aliases(EditsRequest)
"""What image clients call fields of ours."""
