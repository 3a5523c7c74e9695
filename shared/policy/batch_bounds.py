"""How much the services have in hand that compute whole nodes, and how much of it at once."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """`capacity`: nodes in hand. `max_batch`: what one forward pass takes."""

    capacity: int
    max_batch: int


ENCODING: Final = BatchBounds(capacity=32, max_batch=16)
"""Of jobs, and of prompts."""
DECODING: Final = BatchBounds(capacity=8, max_batch=4)
"""Of pictures."""
