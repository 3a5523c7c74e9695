"""A row's noise: a function of its seed and the step, equal to what a diffusers pipeline draws."""

import torch


class Noise:
    """The draws of one row, float32 (1, C, H, W) each, from one CPU generator.

    The first `ahead` draws make the initial latents, draw `ahead` + k belongs to step k: the order
    in which a diffusers pipeline with `generator=torch.Generator("cpu").manual_seed(seed)` draws. A
    step of a deterministic sampler draws nothing."""

    def __init__(self, seed: int, shape: tuple[int, int, int], ahead: int = 1) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = (1, *shape)
        self._ahead = ahead
        self._drawn = 0
        self._last = torch.empty(0)

    def initial(self, index: int = 0) -> torch.Tensor:
        """Of the draws ahead of the steps, the one of this number. To be asked for in order."""
        return self._draw(index)

    def at(self, step: int) -> torch.Tensor:
        """The noise of `step`: the same however often it is asked for, until a later one is."""
        return self._draw(self._ahead + step)

    def _draw(self, index: int) -> torch.Tensor:
        if index < self._drawn - 1:
            raise ValueError(f"draw {index} is past: {self._drawn} were made")
        while self._drawn <= index:
            self._last = torch.randn(self._shape, generator=self._generator)
            self._drawn += 1
        return self._last
