"""Pictures whose LoRA joins after exactly so many steps, drawn by a fleet's parts in one process.

In a fleet a LoRA joins when it has been read: a warm one before the first step, a cold one whenever
it is there. To have it join after K steps in every picture, rows are begun here without it, take K
steps, are given it as the denoiser's engine gives it, and take the rest. Rows, steps, prompt
encoder and decoder are the services' own; `tests/services/denoiser/loras/test_late_loras.py` holds
the engine to the same latents.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from services.denoiser.loras.calibrate import both_rows, take_step
from services.denoiser.loras.extension import give
from services.denoiser.rows.row import Row
from services.denoiser.sampling.model_sampling import Sampling
from services.vae.autoencoder import Autoencoder
from shared.models.catalogue import Catalogue
from shared.models.contracts.network import Network
from shared.models.families.registry import family_of
from shared.models.loras.read import read_adapter
from shared.models.lowrank.bank import Use

ROWS: Final = 20
"""Of a batch."""

Picture = NDArray[np.uint8]


class Painter:
    """The default model of a catalogue, at its default steps, guidance and size, on this thread."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._card = catalogue, catalogue.default
        self._family = family_of(self._card.source)
        self._sampling = Sampling.of(self._family)
        self._network = self._family.network("cpu", torch.float32)
        self._encoder = self._family.text_encoder("cpu", torch.float32)
        self._decoder = Autoencoder(self._card.source, "cpu", torch.float32)

    def use(self, name: str) -> Use:
        """The LoRA of this name in the catalogue's LoRA directories, at scale 1."""
        path = self._catalogue.lora_directory.find(name)
        return read_adapter(name, path, self._family), 1.0

    def draw(self, uses: tuple[Use, ...], prompts: Sequence[str], late: int = 0) -> list[Picture]:
        """A picture (height, width, 3) of each prompt, number n from seed n, whose network has
        `uses` after `late` steps; never, if there are no more. The prompt is encoded with them in
        any case, as a fleet does."""
        drawn: list[Picture] = []
        for start in range(0, len(prompts), ROWS):
            rows = [
                self._row(uses, prompt, seed=start + n)
                for n, prompt in enumerate(prompts[start : start + ROWS])
            ]
            latents = finished(self._network, rows, uses, late)
            drawn += [pixels.numpy() for pixels in self._decoder.decode(list(latents))]
        return drawn

    def _row(self, uses: tuple[Use, ...], prompt: str, seed: int) -> Row:
        """Just begun, without `uses`."""
        return both_rows(self._card, self._sampling, self._encoder, uses, prompt, seed)[0]


@torch.inference_mode()
def finished(
    network: Network, rows: Sequence[Row], uses: tuple[Use, ...], late: int
) -> torch.Tensor:
    """The final latents (rows, C, H, W) of `rows`, which were just begun; see `Painter.draw`."""
    latents = torch.cat([row.latents for row in rows])
    while not rows[0].finished:
        if rows[0].step == late:
            for row in rows:
                give(row, uses)
        latents = take_step(network, rows)
    return latents
