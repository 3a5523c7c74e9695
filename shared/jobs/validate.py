"""A user's request against the catalogue: a complete `JobSpec`, or the field that is wrong."""

import re
import zlib
from typing import Final

from shared.catalogue import Catalogue, ModelCard
from shared.errors import InvalidRequest
from shared.messages import JOB_ID_PATTERN, GenerationRequest, JobSpec, LoraChoice

MAX_PROMPT_CHARACTERS: Final = 32_000
MAX_IMAGES: Final = 10
MAX_STEPS: Final = 1000
MAX_GUIDANCE: Final = 100.0
MAX_SEED: Final = 2**63 - 1
MAX_PREVIEWS: Final = 3
MAX_USER_CHARACTERS: Final = 256
MAX_LORAS: Final = 8
MAX_LORA_SCALE: Final = 10.0
MAX_PNG_BYTES: Final = 8 * 1024 * 1024 - 64 * 1024
"""Of a picture without compression: a noisy one hardly becomes smaller as a png, and the bus takes
8 MiB in one message."""


def validate(request: GenerationRequest, catalogue: Catalogue) -> JobSpec:
    """Fill in the model's defaults and check every limit. Raises `InvalidRequest`."""
    if not re.fullmatch(JOB_ID_PATTERN, request.job_id):
        raise InvalidRequest("job_id", request.job_id, f"text matching {JOB_ID_PATTERN}")
    card = _card(request.model, catalogue)
    width, height = _size(request, card)
    if request.output_format == "png" and width * height * 3 > MAX_PNG_BYTES:
        allowed = f"jpeg or webp for {width}x{height} pixels, whose png may exceed the bus's limit"
        raise InvalidRequest("output_format", "png", allowed)
    sampler = request.sampler or card.default_sampler
    if sampler not in card.samplers:
        raise InvalidRequest("sampler", sampler, "one of " + ", ".join(card.samplers))
    seed = zlib.crc32(request.job_id.encode()) if request.seed is None else request.seed
    return JobSpec(
        prompt=_text("prompt", request.prompt, empty=False),
        model=card.name,
        negative_prompt=(
            None
            if request.negative_prompt is None
            else _text("negative_prompt", request.negative_prompt, empty=True)
        ),
        n=_within("n", request.n, 1, MAX_IMAGES),
        width=width,
        height=height,
        steps=_within("steps", request.steps, 1, MAX_STEPS, card.default_steps),
        guidance=_number("guidance", request.guidance, card.default_guidance),
        sampler=sampler,
        seed=_within("seed", seed, 0, MAX_SEED - MAX_IMAGES),
        service_class=request.service_class,
        deadline=request.deadline,
        previews=_within("previews", request.previews, 0, MAX_PREVIEWS),
        output_format=request.output_format,
        output_compression=_within("output_compression", request.output_compression, 0, 100),
        user=None if request.user is None else _user(request.user),
        loras=_loras(request.loras, catalogue),
        lora_late_steps=_within("lora_late_steps", request.lora_late_steps, 0, MAX_STEPS),
    )


def _card(model: str | None, catalogue: Catalogue) -> ModelCard:
    if model is None:
        return catalogue.default
    if model not in catalogue.cards:
        raise InvalidRequest("model", model, "one of " + ", ".join(catalogue.cards))
    return catalogue.cards[model]


def _size(request: GenerationRequest, card: ModelCard) -> tuple[int, int]:
    width = card.default_width if request.width is None else request.width
    height = card.default_height if request.height is None else request.height
    for name, value, most in (
        ("width", width, card.max_width),
        ("height", height, card.max_height),
    ):
        unit = card.size_multiple
        if value % unit or not unit <= value <= most:
            raise InvalidRequest(name, value, f"a multiple of {unit} from {unit} to {most}")
    return width, height


def _loras(choices: tuple[LoraChoice, ...], catalogue: Catalogue) -> tuple[LoraChoice, ...]:
    if len(choices) > MAX_LORAS:
        raise InvalidRequest("loras", len(choices), f"at most {MAX_LORAS} of them")
    for choice in choices:
        if not -MAX_LORA_SCALE <= choice.scale <= MAX_LORA_SCALE:  # also refuses NaN
            allowed = f"a scale from {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}"
            raise InvalidRequest("loras", choice.scale, allowed)
        catalogue.shelf.find(choice.name)
    return choices


def _text(name: str, value: str, *, empty: bool) -> str:
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest(name, value, f"at most {MAX_PROMPT_CHARACTERS} characters")
    if not empty and not value.strip():
        raise InvalidRequest(name, value, "text that is not empty")
    return value


def _user(user: str) -> str:
    if len(user) > MAX_USER_CHARACTERS:
        raise InvalidRequest("user", user, f"at most {MAX_USER_CHARACTERS} characters")
    return user


def _within(name: str, value: int | None, least: int, most: int, default: int = 0) -> int:
    number = default if value is None else value
    if not least <= number <= most:
        raise InvalidRequest(name, number, f"a whole number from {least} to {most}")
    return number


def _number(name: str, value: float | None, default: float) -> float:
    number = default if value is None else value
    if not 0.0 <= number <= MAX_GUIDANCE:  # also refuses NaN
        raise InvalidRequest(name, number, f"a number from 0 to {MAX_GUIDANCE:g}")
    return number
