"""What a step computes: what its time is predicted from. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StepWork:
    """Of one row's step, or of all rows' together."""

    tokens: int
    """Positions that are computed, those of the prompt included where they are; over all images (a
    guided row has two)."""
    pairs: int
    """Of those, with every position that each attends to."""
    loaded: int = 0
    """Bytes of caches."""
    masked: int = 0
    """Images of which only some positions are asked, or something is recorded: that goes another
    way through the network (`MaskedNetwork.predict_partly`)."""

    @classmethod
    def of(
        cls, images: int, computed: int, attended: int, loaded: int = 0, masked: int = 0
    ) -> "StepWork":
        """Of `images` alike: `computed` positions of each, which attend to `attended`."""
        return cls(images * computed, images * computed * attended, loaded, masked)

    @classmethod
    def full(cls, images: int, tokens: int) -> "StepWork":
        """Of `images` that are computed in full."""
        return cls.of(images, tokens, tokens)

    def __add__(self, other: "StepWork") -> "StepWork":
        return StepWork(
            self.tokens + other.tokens,
            self.pairs + other.pairs,
            self.loaded + other.loaded,
            self.masked + other.masked,
        )

    def __sub__(self, other: "StepWork") -> "StepWork":
        return StepWork(
            self.tokens - other.tokens,
            self.pairs - other.pairs,
            self.loaded - other.loaded,
            self.masked - other.masked,
        )

    def scaled(self, by: float) -> "StepWork":
        return StepWork(
            round(self.tokens * by),
            round(self.pairs * by),
            round(self.loaded * by),
            round(self.masked * by),
        )


NOTHING: Final = StepWork(0, 0)


def total(works: Iterable[StepWork]) -> StepWork:
    return sum(works, NOTHING)
