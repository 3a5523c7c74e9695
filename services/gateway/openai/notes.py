"""What of a request has no effect: its answer says so."""

import re
from typing import Final

from services.gateway.openai.fields import EditsRequest, ImagesRequest
from services.gateway.openai.ignored import ignored, without_effect
from services.gateway.openai.refusals import in_json
from services.gateway.openai.sizes import ratio_of
from shared.messages import JobSpec

_LORA_TAG: Final = re.compile(r"<(?:lora|lyco|hypernet):[^<>]{1,200}>", re.IGNORECASE)
"""By which prompts of other programs name a LoRA."""


def notes(wanted: ImagesRequest, spec: JobSpec) -> list[str]:
    """A sentence for each field of `wanted` that is none of a job's, its name first, or that the
    job `spec` follows only nearly; the job itself tells of the others."""
    found = ignored(wanted)
    ratio = ratio_of(wanted)
    if ratio is not None and abs(spec.width - spec.height * ratio) >= 1:
        nearest = f"the nearest that the model can draw is {spec.width}x{spec.height}"
        found.append(f"aspect_ratio: {in_json(wanted.aspect_ratio)} is not met: {nearest}")
    if wanted.output_quality is not None and wanted.output_format in (None, "png"):
        lossless = spec.output_format == "png"
        reason = "a png is lossless" if lossless else "output_format has to ask for this format"
        found.append(without_effect("output_quality", wanted.output_quality, reason))
    if (tag := _LORA_TAG.search(wanted.prompt)) is not None:
        reason = "loras says which are used, and this is read as text"
        found.append(without_effect("prompt", tag[0], reason))
    if wanted.moderation == "low":
        found.append(without_effect("moderation", "low", "nothing is moderated here"))
    if wanted.num_inference_steps is not None and wanted.quality not in (None, "auto"):
        reason = "num_inference_steps says how many steps are taken"
        found.append(without_effect("quality", wanted.quality, reason))
    if isinstance(wanted, EditsRequest) and wanted.input_fidelity is not None:
        reason = "strength says how much of the image is kept"
        found.append(without_effect("input_fidelity", wanted.input_fidelity, reason))
    return found
