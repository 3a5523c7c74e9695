"""Fields that OpenAI's API or widespread image clients have, and that have no effect here.

They are taken, so that those clients work, and the answer's `warnings` name each that was sent.
"""

from typing import Annotated, Any, Final, get_type_hints

from msgspec import Meta

from services.gateway.openai.refusals import in_json
from services.gateway.openai.undone import UNDONE, UndoneFields


def _without_effect(reason: str) -> Meta:
    about = f"Has no effect here: {reason}. Allowed: anything."
    return Meta(description=about, extra={"allowed": "anything", "ignored": reason})


_UNCHECKED: Final = _without_effect("neither prompts nor images are checked")
_AS_WRITTEN: Final = _without_effect("prompts are taken as they are written")
_UNSAVED: Final = _without_effect("results are kept for a day either way")
_EXACT: Final = _without_effect("nothing is approximated but by fields of its own")
_MEMORY: Final = _without_effect("the server decides how memory is used")


class IgnoredFields(UndoneFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first ones are OpenAI's."""

    style: Annotated[Any, _without_effect("the prompt and loras decide the style")] = None
    metadata: Annotated[Any, _without_effect("only user is kept with a job")] = None
    stream_options: Annotated[
        Any, _without_effect("each image's last event has its usage anyway")
    ] = None
    store: Annotated[Any, _UNSAVED] = None
    safety_identifier: Annotated[Any, _UNCHECKED] = None
    service_tier: Annotated[Any, _without_effect("service_class says how urgent a job is")] = None
    prompt_cache_key: Annotated[Any, _without_effect("prompts are not cached")] = None
    effort: Annotated[Any, _without_effect("num_inference_steps or quality decides it")] = None

    enable_safety_checker: Annotated[Any, _UNCHECKED] = None
    disable_safety_checker: Annotated[Any, _UNCHECKED] = None
    safety_checker: Annotated[Any, _UNCHECKED] = None
    safety_tolerance: Annotated[Any, _UNCHECKED] = None
    enhance_prompt: Annotated[Any, _AS_WRITTEN] = None
    prompt_upsampling: Annotated[Any, _AS_WRITTEN] = None
    prompt_extend: Annotated[Any, _AS_WRITTEN] = None
    system_prompt: Annotated[Any, _AS_WRITTEN] = None
    sys_type: Annotated[Any, _AS_WRITTEN] = None
    bot_task: Annotated[Any, _AS_WRITTEN] = None
    watermark: Annotated[Any, _without_effect("images have no watermark")] = None
    sync_mode: Annotated[Any, _without_effect("an answer has its images in it anyway")] = None
    go_fast: Annotated[Any, _EXACT] = None
    acceleration: Annotated[Any, _EXACT] = None
    enable_teacache: Annotated[Any, _EXACT] = None
    vae_use_slicing: Annotated[Any, _MEMORY] = None
    vae_use_tiling: Annotated[Any, _MEMORY] = None
    generator_device: Annotated[Any, _without_effect("noise is drawn on the CPU")] = None
    fps: Annotated[Any, _without_effect("an image does not move")] = None
    send_images: Annotated[Any, _without_effect("response_format says how images come")] = None
    save_images: Annotated[Any, _UNSAVED] = None
    do_not_save_samples: Annotated[Any, _UNSAVED] = None
    do_not_save_grid: Annotated[Any, _without_effect("there are no grids")] = None


IGNORED: Final[dict[str, str]] = {
    name: hint.__metadata__[0].extra["ignored"]
    for name, hint in get_type_hints(IgnoredFields, include_extras=True).items()
    if name not in UNDONE
}
"""By name: why it has no effect."""


def ignored(wanted: IgnoredFields) -> list[str]:
    """A sentence for each of these fields that asks for something."""
    return [
        without_effect(name, value, reason)
        for name, reason in IGNORED.items()
        if (value := getattr(wanted, name)) not in (None, False, "", [], {})
    ]


def without_effect(name: str, value: object, reason: str) -> str:
    return f"{name}: {in_json(value)} has no effect here: {reason}"
