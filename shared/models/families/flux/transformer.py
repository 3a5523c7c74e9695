"""FLUX's transformer, run block by block."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, Final

import torch

from shared.models.contracts.network import Conditioning, Control, Mode, Partial
from shared.models.contracts.traced import Example
from shared.models.families.flux.masked import MaskedCall
from shared.models.families.flux.pieces import Pieces, pieces
from shared.models.families.flux.stream import PATCH, Context, Rotary, Stream, packed, unpacked
from shared.models.files.safetensors_header import Shape
from shared.models.lowrank.bank import AdaptedModule, AdaptedNetwork, Bank
from shared.models.weights.layout import Layout
from shared.models.weights.load import load

MAX_POSITIONS: Final = 16
"""Different (prompt tokens, rows, columns) whose position embeddings are kept."""
SMALL: Final = 1 << 18
"""Weights of a layer; see `_transpose_small`. Larger ones gain little, and lose some percent where
tokens are many."""


Block = Callable[[Stream, Context], Stream]


class FluxTransformer(AdaptedModule):
    """Implements `Network`: diffusers' `FluxTransformer2DModel` on latents that are not packed.

    `blocks` in their order: the double ones, in which image and text have weights of their own,
    then the single ones, in which they share them. Between two of them there is nothing but the
    stream, so that somebody else may run them one by one."""

    def __init__(self, transformer: Any) -> None:
        self.module = transformer.requires_grad_(False).eval()
        _transpose_small(transformer)
        # Asked for several times a step; the module would look at all its parameters each time.
        self.device: torch.device = transformer.device
        self.dtype: torch.dtype = transformer.dtype
        self.adapted = AdaptedNetwork("transformer", self.module)
        self.guided = bool(transformer.config.guidance_embeds)
        self.blocks: tuple[Block, ...] = tuple(
            _run(block)
            for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
        )
        self.pieces = pieces(transformer)
        self._positions = lru_cache(MAX_POSITIONS)(self._places)

    @classmethod
    def load(
        cls, model: str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> "FluxTransformer":
        """Load only `transformer/` of `model`, a diffusers directory or a hub id, safetensors
        only."""
        # From its own module, when needed: the package itself imports every model there is.
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        on_cpu = torch.device(device).type == "cpu"
        layout = Layout("small_by_column", _is_small, _transpose_small) if on_cpu else None
        return cls(load(FluxTransformer2DModel, model, "transformer", dtype, layout).to(device))

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        with self.adapted.using(bank):
            return self.answer(x, t, *given(conditioning), *self.rotary(x, conditioning))

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def partial_tokens(self, mask: torch.Tensor) -> torch.Tensor:
        return packed(mask.float())[0].any(dim=-1).nonzero()[:, 0]

    def recorded_bytes(self, tokens: int) -> int:
        width = self.module.config.num_attention_heads * self.module.config.attention_head_dim
        return self.depth * 2 * tokens * int(width) * torch.float16.itemsize

    def predict_partly(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        partials: Sequence[Partial],
        modes: Sequence[Mode],
        pieces: Pieces | None = None,
    ) -> torch.Tensor:
        """See `MaskedNetwork`; `pieces`: another way to run those of this network."""
        with self.adapted.using(None):
            return MaskedCall(self, x, t, conditioning, partials, modes, pieces).run()

    def answer(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        embeds: torch.Tensor,
        pooled: torch.Tensor,
        scalars: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """See `Network.predict`; cos and sin as in `Rotary`."""
        conditioning = Conditioning({"embeds": embeds, "pooled": pooled}, scalars)
        stream, context = self.begin(x, t, conditioning, (cos, sin))
        for block in self.blocks:
            stream = block(stream, context)
        return self.end(stream, context, x.shape)

    def rotary(self, x: torch.Tensor, conditioning: Conditioning) -> Rotary:
        """The rotary embedding of images x with this conditioning."""
        [tokens] = conditioning.lengths
        return self._positions(tokens, x.shape[2] // PATCH, x.shape[3] // PATCH)

    def begin(
        self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning, rotary: Rotary
    ) -> tuple[Stream, Context]:
        """What comes before the blocks in `FluxTransformer2DModel.forward`."""
        module = self.module
        image = module.x_embedder(packed(x))
        t = t.to(x.dtype) / 1000  # there and back, as the pipeline has it: it rounds
        times = [t.to(image.dtype) * 1000]
        if self.guided:
            times.append(conditioning.scalars[:, 0].to(image.dtype) * 1000)
        temb = module.time_text_embed(*times, conditioning.tensors["pooled"])
        text = module.context_embedder(conditioning.tensors["embeds"])
        return Stream(image, text), Context(temb, rotary)

    def end(self, stream: Stream, context: Context, shape: torch.Size) -> torch.Tensor:
        """What comes after the blocks: the answer of the latents' shape (F, C, H, W)."""
        image = self.module.norm_out(stream.image, context.temb)
        return unpacked(self.module.proj_out(image), shape)

    def example(self, images: int, height: int, width: int, tokens: int) -> Example:
        """See `Traceable`."""
        config, drawn = self.module.config, torch.Generator().manual_seed(images)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=drawn).to(self.device, self.dtype)

        return (
            normal(images, config.in_channels // PATCH**2, height * PATCH, width * PATCH),
            torch.linspace(999.0, 1.0, images).to(self.device),
            Conditioning(
                {
                    "embeds": normal(images, tokens, config.joint_attention_dim),
                    "pooled": normal(images, config.pooled_projection_dim),
                },
                normal(images, int(self.guided)).abs() * 4,
            ),
        )

    def _places(self, tokens: int, rows: int, columns: int) -> Rotary:
        """Of so many tokens of a prompt, which have no place, and an image of so many patches."""
        places = torch.zeros(tokens + rows * columns, 3)
        grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        places[tokens:, 1], places[tokens:, 2] = (axis.flatten() for axis in grid)
        cos, sin = self.module.pos_embed(places.to(self.device, self.dtype))
        return cos, sin


def given(conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`embeds`, `pooled` and `scalars`, as `FluxTransformer.answer` takes them."""
    return conditioning.tensors["embeds"], conditioning.tensors["pooled"], conditioning.scalars


def _is_small(shape: Shape) -> bool:
    return len(shape) == 2 and prod(shape) <= SMALL


def _transpose_small(module: torch.nn.Module) -> None:
    """Lay out small layers' weights in a CPU's memory column by column: multiplied with a hundred
    tokens or fewer, that takes up to a third less time. They look the same to everybody."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear) and _is_small(layer.weight.shape):
            weight = layer.weight.data
            if weight.device.type == "cpu":
                layer.weight.data = weight.t().contiguous().t()


def _run(block: Any) -> Block:
    """A block of diffusers' as one of ours."""

    def run(stream: Stream, context: Context) -> Stream:
        text, image = block(
            hidden_states=stream.image,
            encoder_hidden_states=stream.text,
            temb=context.temb,
            image_rotary_emb=context.rotary,
        )
        return Stream(image, text)

    return run
