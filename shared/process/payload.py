"""What the bus has to carry in one message: images, above all."""

from typing import Final

from shared.errors import Misconfigured
from shared.media.sizes import MAX_FILE_BYTES

ENVELOPE_BYTES: Final = 32 * 1024
"""Of what is said beside a result."""
NEEDED: Final = MAX_FILE_BYTES + ENVELOPE_BYTES
"""Bytes of the largest message: a result; a request with its images is a little smaller."""


def refuse_small_payload(max_payload: int) -> None:
    """Raises `Misconfigured` about a bus that takes no messages of that size. `max_payload`: see
    `Bus.max_payload`."""
    if max_payload < NEEDED:
        raise Misconfigured(
            f"DARKROOM_NATS_URL: this bus takes messages of at most {max_payload} bytes, and "
            f"images need {NEEDED}: set `max_payload: 8MB` in its configuration"
        )
