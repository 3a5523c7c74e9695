"""Fields of every request for images."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from services.gateway.openai.kinds.meta import described, number, sentence, text
from services.gateway.openai.kinds.objects import Control, Lora
from shared import service_classes
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
from shared.messages import ImageFormat
from shared.models.settings import MAX_GUIDANCE, MAX_STEPS
from shared.service_classes import DEFAULT_CLASS, ServiceClass

MAX_DEADLINE: Final = 24 * 3600
"""Seconds; results are kept no longer."""

Prompt = Annotated[str, text("What to draw.", 1, MAX_PROMPT_CHARACTERS)]
NegativePrompt = Annotated[str, text("What the image should not show.", 0, MAX_PROMPT_CHARACTERS)]
ModelId = Annotated[
    str, described("Default: the first of GET /v1/models.", "a model's id, or one of its aliases")
]
Count = Annotated[int, number("How many images; image i is drawn from seed + i.", 1, MAX_IMAGES)]
Quality = Annotated[
    Literal["auto", "low", "medium", "high", "standard", "hd"],
    described(
        "How many denoising steps: low takes half of the model's default, medium and standard the "
        "default, high and hd one and a half times the default. auto, the default, leaves it to "
        "num_inference_steps, beside which no other value has an effect.",
        '"auto", "low", "medium", "high", "standard" or "hd"',
    ),
]
ResponseFormat = Annotated[
    Literal["b64_json", "url"],
    described(
        "Default: b64_json. A url is served by this gateway for a day; a stream always carries "
        "b64_json.",
        '"b64_json" or "url"',
    ),
]
OutputFormat = Annotated[
    ImageFormat,
    described(
        "Default: png, or jpeg for images whose png may be too large for the bus; the answer says "
        "which.",
        '"png", "jpeg" or "webp"',
    ),
]
Compression = Annotated[
    int, number("Quality of jpeg and webp; png is lossless and takes 100.", 0, 100)
]
Background = Annotated[
    Literal["auto", "opaque"], described("Images are opaque.", '"auto" or "opaque"')
]
Moderation = Annotated[
    Literal["auto", "low"],
    described("For clients that send it; nothing is moderated here.", '"auto" or "low"'),
]
User = Annotated[str, text("Who asks; it is kept with the job.", 0, MAX_USER_CHARACTERS)]
Stream = Annotated[bool, described("Whether to answer with server-sent events.", "true or false")]
PartialImages = Annotated[
    int, number("Previews of each running image; needs stream.", 0, MAX_PREVIEWS)
]
Steps = Annotated[int, number("Denoising steps. Default: the model's own.", 1, MAX_STEPS)]
Guidance = Annotated[
    float,
    number(
        "Classifier-free guidance; 1 and below: none. Default: the model's own.",
        0,
        int(MAX_GUIDANCE),
        kind="a number",
    ),
]
Sampler = Annotated[
    str,
    described("Default: the model's own.", "one of the model's samplers (see GET /v1/models)"),
]
Seed = Annotated[
    int,
    number(
        "The same seed and settings give the same image. -1 is a random one, as is the default.",
        RANDOM_SEED,
        MAX_SEED - MAX_IMAGES,
    ),
]
Loras = Annotated[
    list[Lora],
    described(
        "LoRAs to apply.",
        f'a list of up to {MAX_LORAS} objects {{"name": ..., "scale": ...}}, with names from GET '
        '/v1/models, or with "path", "hub" or "url" instead, and "sha256" if you like; scales '
        f'(default 1) from {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}; with "partial": true a '
        "LoRA is used though some of its tensors have no use",
    ),
]
LateSteps = Annotated[
    int,
    number(
        "Steps that may be taken while the LoRAs are still being loaded: sooner done, but not "
        "exactly the same image; the result says what joined late. Default: 0, none.",
        0,
        MAX_STEPS,
    ),
]
AS_TEXT: Final = "a png, jpeg or webp file in base64, bare or as a data URL"
Controls = Annotated[
    list[Control],
    described(
        "ControlNets to apply, each with its control image.",
        f'a list of up to {MAX_CONTROLS} objects {{"model": ..., "image": ..., "scale": ..., '
        '"start": ..., "end": ..., "guess_mode": ...}, with models from the controls in GET '
        f"/v1/models, images that are {AS_TEXT}, together at most {MAX_UPLOAD_BYTES} bytes, scales "
        f"(default 1) from {-MAX_CONTROL_SCALE:g} to {MAX_CONTROL_SCALE:g}, a start (default 0) "
        "and a later end (default 1) from 0 to 1",
    ),
]
ControlLag = Annotated[
    int,
    number(
        "Steps by which the ControlNets may lag behind: sooner done, but not exactly the same "
        "image. Default: 0, none.",
        0,
        MAX_CONTROL_LAG,
    ),
]
Class = Annotated[
    ServiceClass,
    described(
        f"Interactive jobs go first, batch jobs last. Default: {DEFAULT_CLASS}.",
        service_classes.ALLOWED,
    ),
]
Deadline = Annotated[
    float,
    Meta(
        description=sentence(
            "Seconds from now after which the images are of no use. A job that has not ended "
            "by then fails with deadline_exceeded. Default: none.",
            f"a number above 0, up to {MAX_DEADLINE}",
        ),
        extra={"allowed": f"a number above 0, up to {MAX_DEADLINE}"},
        gt=0,
        le=MAX_DEADLINE,
    ),
]
OutputQuality = Annotated[
    int,
    number("output_compression of a jpeg or webp; without effect on a png.", 0, 100),
]
Extra = Annotated[
    dict[str, Any],
    described("Fields of this body; for clients that send those beside OpenAI's so.", "an object"),
]
