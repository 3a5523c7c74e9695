"""A user's request against the catalogue: a complete `JobSpec`, or the field that is wrong."""

import re
import zlib
from typing import Final

from shared.errors import InvalidRequest
from shared.jobs.edits import edit_spec, read_source_image
from shared.jobs.travel import MAX_IMAGE_BYTES, check_bytes
from shared.media.sizes import format_of, wanted_size
from shared.messages import (
    JOB_ID_PATTERN,
    ControlChoice,
    ControlSpec,
    GenerationRequest,
    JobSpec,
    LoraChoice,
)
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue
from shared.models.loras.fits import check_fits
from shared.models.loras.sources.origins import check as check_origin
from shared.models.samplers.samplers import sampler_named
from shared.models.settings import MAX_GUIDANCE, MAX_STEPS

MAX_PROMPT_CHARACTERS: Final = 32_000
MAX_IMAGES: Final = 10
MAX_SEED: Final = 2**63 - 1
RANDOM_SEED: Final = -1
"""What many clients send for a seed of the server's choice."""
MAX_PREVIEWS: Final = 3
MAX_USER_CHARACTERS: Final = 256
MAX_LORAS: Final = 8
MAX_LORA_SCALE: Final = 10.0
MAX_CONTROLS: Final = 4
MAX_CONTROL_SCALE: Final = 10.0
MAX_CONTROL_LAG: Final = 1


def validate(request: GenerationRequest, catalogue: Catalogue) -> JobSpec:
    """Fill in the model's defaults and check every limit. Raises `InvalidRequest`, or
    `AdapterUnusable` for a LoRA on this host that does not fit the model. If the request brings an
    image, this decodes it: a megapixel takes some 10 ms and 4 MB."""
    if not re.fullmatch(JOB_ID_PATTERN, request.job_id):
        raise InvalidRequest("job_id", request.job_id, f"text matching {JOB_ID_PATTERN}")
    card = _card(request.model, catalogue)
    check_bytes(request, MAX_IMAGE_BYTES)
    source = read_source_image(request)
    width, height = wanted_size(request, card, None if source is None else source.size)
    output_format = format_of(request.output_format, (width, height), card)
    sampler = sampler_named(request.sampler or card.default_sampler)
    if sampler not in card.samplers:
        raise InvalidRequest("sampler", request.sampler, "one of " + ", ".join(card.samplers))
    steps = _within("steps", request.steps, 1, MAX_STEPS, card.default_steps)
    return JobSpec(
        prompt=_text("prompt", request.prompt, empty=False),
        model=card.name,
        negative_prompt=_negative_prompt(request.negative_prompt, card),
        n=_within("n", request.n, 1, MAX_IMAGES),
        width=width,
        height=height,
        steps=steps,
        guidance=_number("guidance", request.guidance, card.default_guidance),
        sampler=sampler,
        seed=_seed(request),
        service_class=request.service_class,
        deadline=request.deadline,
        previews=_within("previews", request.previews, 0, MAX_PREVIEWS),
        output_format=output_format,
        output_compression=_within("output_compression", request.output_compression, 0, 100),
        user=None if request.user is None else _user(request.user),
        loras=_loras(request.loras, card, catalogue),
        lora_late_steps=_within("lora_late_steps", request.lora_late_steps, 0, MAX_STEPS),
        controls=_controls(request.controls, card, catalogue),
        control_lag=_within("control_lag", request.control_lag, 0, MAX_CONTROL_LAG),
        edit=None if source is None else edit_spec(request, source, steps, card),
        embedded_guidance=card.embedded_guidance,
    )


def _card(model: str | None, catalogue: Catalogue) -> ModelCard:
    if model is None:
        return catalogue.default
    card = catalogue.find(model)
    if card is None:
        allowed = "one of " + ", ".join((*catalogue.cards, *catalogue.aliases))
        if (reason := catalogue.reason("model", model)) is not None:
            allowed += f"; {model} cannot be used: {reason}"
        raise InvalidRequest("model", model, allowed)
    return card


def _seed(request: GenerationRequest) -> int:
    if request.seed is None or request.seed == RANDOM_SEED:
        return zlib.crc32(request.job_id.encode())
    if not 0 <= request.seed <= MAX_SEED - MAX_IMAGES:
        allowed = (
            f"a whole number from 0 to {MAX_SEED - MAX_IMAGES}, or {RANDOM_SEED}: a random one"
        )
        raise InvalidRequest("seed", request.seed, allowed)
    return request.seed


def _negative_prompt(text: str | None, card: ModelCard) -> str | None:
    if text is not None and card.embedded_guidance:
        allowed = f"nothing, for the model {card.name} was trained with its guidance in it"
        raise InvalidRequest("negative_prompt", text, allowed)
    return None if text is None else _text("negative_prompt", text, empty=True)


def _loras(
    choices: tuple[LoraChoice, ...], card: ModelCard, catalogue: Catalogue
) -> tuple[LoraChoice, ...]:
    if len(choices) > MAX_LORAS:
        raise InvalidRequest("loras", len(choices), f"at most {MAX_LORAS} of them")
    for choice in choices:
        if not -MAX_LORA_SCALE <= choice.scale <= MAX_LORA_SCALE:  # also refuses NaN
            allowed = f"a scale from {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}"
            raise InvalidRequest("loras", choice.scale, allowed)
        check_origin(choice, catalogue.lora_directory, catalogue.lora_hosts)
        check_fits(choice, catalogue.lora_directory, card.source)
    return choices


def _controls(
    choices: tuple[ControlChoice, ...], card: ModelCard, catalogue: Catalogue
) -> tuple[ControlSpec, ...]:
    if len(choices) > MAX_CONTROLS:
        raise InvalidRequest("controls", len(choices), f"at most {MAX_CONTROLS} of them")
    return tuple(_control(choice, card, catalogue) for choice in choices)


def _control(choice: ControlChoice, card: ModelCard, catalogue: Catalogue) -> ControlSpec:
    fitting = catalogue.controls_for(card.name)
    if choice.model not in fitting:
        allowed = f"one of {', '.join(fitting)}"
        if not fitting:
            allowed = f"nothing, for no ControlNet here fits the model {card.name}"
            if card.interface is None:
                allowed = f"nothing, for there are no ControlNets for a {card.pipeline}"
        elif choice.model in catalogue.controls:
            allowed += f", for {choice.model} does not fit the model {card.name}"
        if (reason := catalogue.reason("controlnet", choice.model)) is not None:
            allowed += f"; {choice.model} cannot be used: {reason}"
        raise InvalidRequest("controls", choice.model, allowed)
    if not choice.image:
        raise InvalidRequest("controls", choice.image, "a png, jpeg or webp file as the image")
    if not -MAX_CONTROL_SCALE <= choice.scale <= MAX_CONTROL_SCALE:  # also refuses NaN
        allowed = f"a scale from {-MAX_CONTROL_SCALE:g} to {MAX_CONTROL_SCALE:g}"
        raise InvalidRequest("controls", choice.scale, allowed)
    if not 0.0 <= choice.start < choice.end <= 1.0:  # also refuses NaN
        allowed = "a start and a later end, both from 0 to 1"
        raise InvalidRequest("controls", (choice.start, choice.end), allowed)
    return ControlSpec(
        model=choice.model,
        scale=choice.scale,
        start=choice.start,
        end=choice.end,
        guess_mode=choice.guess_mode,
    )


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
