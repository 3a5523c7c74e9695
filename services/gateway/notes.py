"""What of a request has no effect: its answer says so."""

from services.gateway.ignored import ignored, without_effect
from services.gateway.request import EditsRequest, ImagesRequest
from shared.messages import JobSpec


def notes(wanted: ImagesRequest, spec: JobSpec) -> list[str]:
    """A sentence for each field of `wanted` that does nothing for `spec`, its name first."""
    found = ignored(wanted)
    if wanted.moderation == "low":
        found.append(without_effect("moderation", "low", "nothing is moderated here"))
    if wanted.num_inference_steps is not None and wanted.quality not in (None, "auto"):
        reason = "num_inference_steps says how many steps are taken"
        found.append(without_effect("quality", wanted.quality, reason))
    if wanted.negative_prompt and not spec.guided:
        reason = f"with a guidance_scale of {spec.guidance:g} nothing is steered away from"
        found.append(without_effect("negative_prompt", wanted.negative_prompt, reason))
    if isinstance(wanted, EditsRequest) and wanted.input_fidelity is not None:
        reason = "strength says how much of the image is kept"
        found.append(without_effect("input_fidelity", wanted.input_fidelity, reason))
    return found
