"""A row whose mask mode is `cached`: what the network computes of it in each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from services.denoiser.mask_cache.files import ActivationCache
from services.denoiser.mask_cache.prefetch import PrefetchedStep, Prefetcher
from services.denoiser.mask_cache.recorder import Recorder
from services.denoiser.rows.extension import RowExtension
from shared.models.contracts.network import Mode, Partial
from shared.policy.batch_key import ShapeKey
from shared.policy.step_work import StepWork

RECORDED_KINDS: Final = ("key", "value")
"""What is recorded of each block; see `docs/adr/0024-activation-caches-are-recorded-edits.md`."""
FULL: Final[tuple[Mode, ...]] = ("full",)
CACHED: Final[tuple[Mode, ...]] = ("keys_values",)
"""Modes of one block."""
MASK: Final = "mask"
"""In the first step of an activation cache: the tokens of which an edit was recorded, not the
image."""


@dataclass(slots=True, eq=False, kw_only=True)
class RowCache(RowExtension):
    """There is a `cache`, and only `tokens` are computed; or a `recorder`, for what is computed;
    or both: what another edit painted, and this one does not, is mended in the cache.

    See ADR 24."""

    tokens: torch.Tensor
    """Places (M,), int64, ascending: those in the mask, and those that the cache has an edit
    of."""
    dirty: torch.Tensor
    """Of those, the ones that what is recorded will have an edit of."""
    positions: int
    """Tokens of the image."""
    modes: Sequence[Mode]
    """Of the blocks, in the next step."""
    first: int = 0
    """Steps that somebody else took, or this row before it went on here."""
    cache: ActivationCache | None = None
    prefetcher: Prefetcher | None = None
    """What brings the cache to the network; None: it is there."""
    recorder: Recorder | None = None
    used: list[int] = field(default_factory=list)
    """Steps that were taken with the cache."""
    _asked: int | None = None
    _records: tuple[dict[str, torch.Tensor], ...] = ()

    @property
    def active(self) -> bool:
        """Whether the network has to be asked for more or less than its answer."""
        cached = self.cache is not None and self.cached_blocks > 0.0
        return cached or self.recording

    @property
    def recording(self) -> bool:
        return self.recorder is not None and not self.recorder.over

    @property
    def loaded(self) -> int:
        """Bytes that are loaded for a step."""
        if self.cache is None or self.prefetcher is None:
            return 0
        return round(self.cached_blocks * self.cache.step_bytes)

    @property
    def cached_blocks(self) -> float:
        """Share of the blocks that use what is recorded."""
        return 1.0 - self.modes.count("full") / len(self.modes)

    @property
    def share(self) -> float:
        """Of the image's tokens, those that a step computes."""
        return 1.0 if self.cache is None else len(self.tokens) / self.positions

    def partials(self, step: int, images: int, device: torch.device) -> list[Partial]:
        """For its `images` in `step`, the unconditional one first."""
        self._asked = step
        recording = self.recording  # the writer may end it at any time
        self._records = tuple({} for _ in range(images))
        if self.cache is None:
            return [Partial(record=record, kinds=RECORDED_KINDS) for record in self._records]
        tokens, found = self.tokens.to(device), self._recorded(self.cache, step, images)
        if not recording:
            return [Partial(tokens, each) for each in found]
        renewed = tokens[~torch.isin(tokens, self.dirty.to(device))]
        return [
            Partial(tokens, each, record, RECORDED_KINDS, renewed)
            for each, record in zip(found, self._records, strict=True)
        ]

    def _recorded(
        self, cache: ActivationCache, step: int, images: int
    ) -> Sequence[Mapping[str, torch.Tensor]]:
        found = cache.at(step)
        each = [_of_image(found, i) for i in range(images)]
        prefetcher = self.prefetcher  # it may be closed at any time
        if prefetcher is None:
            return each
        return [PrefetchedStep(prefetcher, step, i, names) for i, names in enumerate(each)]

    @property
    def local(self) -> bool:
        return self.active

    def work(self, images: int, shape: ShapeKey) -> StepWork:
        computed = 1.0 - self.cached_blocks * (1.0 - self.share_with(sum(shape.prompt)))
        masked = images if self.active else 0
        tokens = shape.tokens
        return StepWork.of(images, round(computed * tokens), tokens, self.loaded, masked)

    def share_with(self, prompt: int) -> float:
        """Of the image's tokens and the `prompt` ones of its prompt, those that a block with caches
        computes."""
        if self.cache is None:
            return 1.0
        return (len(self.tokens) + prompt) / (self.positions + prompt)

    def stepped(self, step: int) -> None:
        asked, self._asked = self._asked == step, None
        records, self._records = self._records, ()
        if self.cache is not None and asked and self.cached_blocks > 0.0:
            self.used.append(step)
        if self.recorder is None:
            return
        if not asked:
            self.recorder.close()
            return
        kept = {f"{i}.{n}": each for i, record in enumerate(records) for n, each in record.items()}
        if step == 0:
            kept[MASK] = self.dirty
        self.recorder.put(step, kept)

    def close(self) -> None:
        prefetcher, self.prefetcher = self.prefetcher, None
        if prefetcher is not None:
            prefetcher.close()
        if self.recorder is not None:
            self.recorder.close()

    def approximations(self, index: int, steps: int) -> set[str]:
        used = sum(step < steps for step in self.used)
        if not used:
            return set()
        share = f"{self.share:.2f} of tokens"
        return {f"mask_cached: image {index}, {share}, {used} of steps {self.first + 1} to {steps}"}


def _of_image(found: Mapping[str, torch.Tensor], image: int) -> dict[str, torch.Tensor]:
    prefix = f"{image}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in found.items()
        if name.startswith(prefix)
    }
