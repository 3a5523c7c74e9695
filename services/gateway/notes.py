"""What of a request has no effect: its answer says so."""

from services.gateway.ignored import ignored, without_effect
from services.gateway.request import EditsRequest, ImagesRequest


def notes(wanted: ImagesRequest) -> list[str]:
    """A sentence for each field of `wanted` that is none of a job's, its name first; the job itself
    tells of the others."""
    found = ignored(wanted)
    if wanted.moderation == "low":
        found.append(without_effect("moderation", "low", "nothing is moderated here"))
    if wanted.num_inference_steps is not None and wanted.quality not in (None, "auto"):
        reason = "num_inference_steps says how many steps are taken"
        found.append(without_effect("quality", wanted.quality, reason))
    if isinstance(wanted, EditsRequest) and wanted.input_fidelity is not None:
        reason = "strength says how much of the image is kept"
        found.append(without_effect("input_fidelity", wanted.input_fidelity, reason))
    return found
