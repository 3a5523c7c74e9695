"""Which activation cache a row is computed with, or recorded as (InstGenIE, arXiv 2505.20600
§4)."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from services.denoiser.mask_cache.key import CacheKeyParts, cache_key, fingerprint
from services.denoiser.mask_cache.prefetch import Prefetcher
from services.denoiser.mask_cache.recorder import Recorder
from services.denoiser.mask_cache.row_cache import CACHED, MASK, RECORDED_KINDS, RowCache
from services.denoiser.mask_cache.store import ActivationStore
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from shared.models.contracts.family import Family
from shared.models.contracts.network import FULL_FROM, MaskedNetwork
from shared.models.files.directory import local_directory
from shared.residency.loader import Loader
from shared.residency.transfer import Transfer

log = logging.getLogger(__name__)

RENEWED_FROM: Final = 0.02
"""Share of an image's tokens from which it is worth writing an activation cache anew, when an edit
computes so many that were recorded of another edit, and leaves them as they are in the image."""
HEADER: Final = 128
"""Bytes that a file says about one tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """Of an edit's `tokens` (M,) those are `dirty` of which its recording will have the edit, and
    not the image. Not `cached`: all of the image is computed."""

    tokens: torch.Tensor
    dirty: torch.Tensor
    cached: bool
    recorded: bool


def planned(own: torch.Tensor, before: torch.Tensor | None, positions: int, whole: bool) -> Planned:
    """How an edit of the tokens `own` is computed, if there is an activation cache that has another
    edit at the tokens `before`; None: there is none. All int64, ascending, below `positions`.
    `whole`: none of its steps was taken before.

    What is recorded at the tokens of another edit is nobody else's business, so they are computed
    as well. They come out as they are in the image, and take their place in the cache: what is
    left in it of any edit is what all of them had in common."""
    if before is None:
        recorded = whole and len(own) <= FULL_FROM * positions
        return Planned(own, own, cached=False, recorded=recorded)
    theirs, ours = (torch.zeros(positions, dtype=torch.bool) for _ in range(2))
    theirs[before] = ours[own] = True
    cached = int((theirs | ours).sum()) <= FULL_FROM * positions
    left = theirs & ours if cached else ours
    mended = int(theirs.sum() - left.sum())
    return Planned(
        tokens=(theirs | ours).nonzero()[:, 0],
        dirty=left.nonzero()[:, 0],
        cached=cached,
        recorded=whole and mended >= RENEWED_FROM * positions,
    )


class CacheLookup:
    """Those of one model, in the host's `store`. One thread writes what rows record, and `loader`
    brings what they need."""

    def __init__(
        self, store: ActivationStore, family: Family, network: MaskedNetwork, loader: Loader
    ) -> None:
        """`network`: as loaded just now from the family's files."""
        self._store, self._family, self._network = store, family, network
        self._model = fingerprint(Path(local_directory(family.source)) / family.denoiser)
        self._writer = ThreadPoolExecutor(1, "cache-writer")
        self._transfer = Transfer(loader, network.device)

    def close(self) -> None:
        self._writer.shutdown()

    def settle(self) -> None:
        """Return when all that was recorded until now is written."""
        self._writer.submit(lambda: None).result()

    def masked(self, row: Row, image: SourceImage, start: int) -> RowCache | None:
        """How `row` is computed, which began from `image`, without the first `start` steps, and has
        neither adapters nor ControlNets; None: in full, and nothing is recorded. Blocks."""
        assert image.mask is not None
        key, steps = self._key(row, image, start), row.table.steps
        own = self._network.partial_tokens(image.mask)
        positions = self._family.sequence_length(*image.mask.shape[-2:])
        cache = self._store.find(key, range(steps))
        before = None if cache is None else cache.at(0)[MASK]
        found = planned(own, before, positions, whole=row.step == 0)
        if not found.cached and not found.recorded:
            log.info("%s: computed in full, and not recorded", row)
            return None
        masked = RowCache(
            tokens=found.tokens,
            dirty=found.dirty,
            positions=positions,
            modes=CACHED * self._network.depth,
            first=row.step,
            cache=cache if found.cached else None,
        )
        if masked.cache is not None and self._transfer.needed(masked.cache.spilled):
            masked.prefetcher = Prefetcher(self._transfer, masked.cache, row.step)
        if found.recorded:
            step = self._network.recorded_bytes(positions)
            header = HEADER * (2 * self._network.depth + 2)
            nbytes = steps * row.forwards * (step + header) + own.nbytes
            replaced = cache is not None
            masked.recorder = Recorder(self._store, key, nbytes, steps, self._writer, replaced)
        return masked

    def _key(self, row: Row, image: SourceImage, start: int) -> str:
        assert image.digest is not None
        kept = (
            f"{' '.join(RECORDED_KINDS)}, float16 of {self._network.dtype}, {row.forwards} images"
        )
        return cache_key(
            CacheKeyParts(
                image=image.digest,
                model=self._model,
                adapters=(),
                sampler=row.table.sampler,
                steps=row.table.steps,
                first_step=start,
                shape=tuple(row.latents.shape[1:]),
                kept=f"{kept}, from {'pure ' if image.pure else ''}noise",
            )
        )
