"""A ControlNet: a hint is embedded once; then it says what to add to each step, for many images."""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import nn

from shared.errors import Misconfigured, NotFinite
from shared.host.torch_graph import Graph
from shared.models.contracts.network import Conditioning
from shared.models.contracts.traced import TRIALS, graph_if_same
from shared.models.families.unet.inputs import CrossAttention
from shared.models.weights.agreements import identity_of
from shared.models.weights.load import load


class UnetControlNet:
    """Implements `ControlNet`: diffusers' `ControlNetModel` (arXiv 2302.05543)."""

    inputs = CrossAttention()

    def __init__(self, module: Any) -> None:
        """Raises `Misconfigured` if it is one that pools what it says."""
        if module.config.global_pool_conditions:
            raise Misconfigured("a ControlNet with global_pool_conditions is not supported")
        self._module = module.requires_grad_(False).eval()
        self.device: torch.device = module.device
        self.dtype: torch.dtype = module.dtype
        # Embedded hints are what `residuals` is given, in the place of hints.
        self._embedding = module.controlnet_cond_embedding
        module.controlnet_cond_embedding = nn.Identity()
        self._reversed = module.config.controlnet_conditioning_channel_order == "bgr"
        module.register_to_config(controlnet_conditioning_channel_order="rgb")
        self._levels = 2 ** (len(module.config.block_out_channels) - 1)
        self._graph = self._traced()

    @classmethod
    def load(cls, source: str, dtype: torch.dtype, device: str) -> Self:
        """From a directory or hub id, safetensors only. Raises `Misconfigured`."""
        from diffusers.models.controlnets.controlnet import ControlNetModel

        try:
            return cls(load(ControlNetModel, source, None, dtype).to(device))
        except (Misconfigured, OSError, ValueError) as error:
            raise Misconfigured(f"the ControlNet {source!r} cannot be loaded: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        return self.inputs.names

    @property
    def scalars(self) -> int:
        return self.inputs.sizes

    @torch.inference_mode()
    def ask(self) -> None:
        if not all(bool(one.isfinite().all()) for one in self._forward(*self._example(*TRIALS[0]))):
            raise NotFinite("what it adds to a step is not finite")

    @cached_property
    def wide(self) -> Self:
        wide = copy.copy(self)
        wide._module, wide.dtype = copy.deepcopy(self._module).float(), torch.float32
        wide._graph = wide._forward
        return wide

    @torch.inference_mode()
    def embed(self, hint: torch.Tensor) -> torch.Tensor:
        hint = hint.to(self.device, self.dtype)
        return self._embedding(hint.flip(1) if self._reversed else hint)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def residuals(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        hint: torch.Tensor,
        scales: torch.Tensor,
    ) -> list[torch.Tensor]:
        height, width = x.shape[-2:]
        halved = height % self._levels == width % self._levels == 0
        forward = self._graph if halved else self._forward
        found = forward(x, t, hint, *self.inputs.tensors(conditioning))
        return [
            residual * scale.view(-1, 1, 1, 1)
            for residual, scale in zip(found, scales.to(x.device, x.dtype).unbind(1), strict=True)
        ]

    def scales(self, rows: Sequence[tuple[float, bool]]) -> torch.Tensor:
        """In guess mode the outer layers count less, as `ControlNetModel.forward` has it."""
        count = len(self._module.controlnet_down_blocks) + 1
        rising = torch.logspace(-1, 0, count)
        return torch.stack(
            [(rising if guess else torch.ones(count)) * scale for scale, guess in rows]
        )

    def _forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        hint: torch.Tensor,
        prompt: torch.Tensor,
        scalars: torch.Tensor,
        *others: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        down, middle = self._module(
            x,
            t,
            encoder_hidden_states=prompt,
            controlnet_cond=hint,
            added_cond_kwargs=self.inputs.added(scalars, *others),
            return_dict=False,
        )
        return *down, middle

    def _traced(self) -> Graph:
        """Its graph, if it is on the CPU and the graph can be trusted."""
        if self.device.type != "cpu":
            return self._forward
        examples = [self._example(*trial) for trial in TRIALS]
        return graph_if_same(self._forward, examples, identity_of(self._module, type(self)))

    def _example(
        self, images: int, height: int, width: int, tokens: int
    ) -> tuple[torch.Tensor, ...]:
        config, drawn = self._module.config, torch.Generator().manual_seed(images)
        size = (height * self._levels, width * self._levels)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=drawn).to(self.device, self.dtype)

        return (
            normal(images, config.in_channels, *size),
            torch.linspace(999.0, 1.0, images).to(self.device),
            normal(images, config.block_out_channels[0], *size),
            *self.inputs.tensors(self.inputs.example(config, images, tokens, False, normal)),
        )
