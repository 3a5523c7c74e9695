"""The key by which rows batch together."""

from typing import NamedTuple


class ShapeKey(NamedTuple):
    """Latents (channels, height, width), and the lengths of the sequences in the conditioning.
    Equal keys may share a step."""

    channels: int
    height: int
    width: int
    prompt: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Latent positions: what a forward's cost grows with."""
        return self.height * self.width
