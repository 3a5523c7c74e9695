"""A row's noise: a function of its seed and the step, equal to what a diffusers pipeline draws."""

import torch


class Noise:
    """The draws of one row, float32 (1, C, H, W) each, from one CPU generator.

    Draw 0 makes the initial latents, draw k + 1 belongs to step k; that is the order in which a
    diffusers pipeline with `generator=torch.Generator("cpu").manual_seed(seed)` draws. A step of a
    deterministic sampler draws nothing."""

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = (1, *shape)
        self._drawn = 0
        self._last = torch.empty(0)

    def initial(self) -> torch.Tensor:
        return self._draw(0)

    def at(self, step: int) -> torch.Tensor:
        """The noise of `step`: the same however often it is asked for, until a later one is."""
        return self._draw(step + 1)

    def _draw(self, index: int) -> torch.Tensor:
        if index < self._drawn - 1:
            raise ValueError(f"draw {index} is past: {self._drawn} were made")
        while self._drawn <= index:
            self._last = torch.randn(self._shape, generator=self._generator)
            self._drawn += 1
        return self._last
