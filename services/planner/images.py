"""The images that a request brings, and where they are kept for whoever computes with them."""

from collections.abc import Iterator

from shared import subjects
from shared.messages import GenerationRequest


def images_of(request: GenerationRequest) -> Iterator[tuple[str, bytes]]:
    """Subjects of INPUTS, and the files to be stored there."""
    for number, control in enumerate(request.controls):
        yield subjects.job_input(request.job_id, number), control.image
    if request.image is not None:
        yield subjects.job_input(request.job_id, "image"), request.image
    if request.mask is not None:
        yield subjects.job_input(request.job_id, "mask"), request.mask
