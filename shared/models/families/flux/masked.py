"""FLUX's transformer for images of which only some tokens change: InstGenIE (arXiv 2505.20600 §4).

Only masked tokens ask: queries, attention rows, output projections and feed-forward run for them
alone. What they attend to is everything: keys and values of unmasked tokens come from what was
recorded when the whole image was computed at the same step. Images of one call may have
different masks, and some none: tokens of all images lie packed, one behind the other, and only
attention is done image by image, so that nothing is padded to the largest mask.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import torch

from shared.models.contracts.network import Conditioning, Mode, Partial
from shared.models.families.flux.packed import Tokens, gated, joined, modulated, split
from shared.models.families.flux.pieces import Pieces, attention
from shared.models.families.flux.recorded import Recorded
from shared.models.families.flux.stream import Context, Rotary, Stream, unpacked


class Blocks(Protocol):
    """What a call needs of the network that it runs."""

    module: Any
    """Diffusers' `FluxTransformer2DModel`."""
    pieces: Pieces

    def rotary(self, x: torch.Tensor, conditioning: Conditioning) -> Rotary: ...

    def begin(
        self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning, rotary: Rotary
    ) -> tuple[Stream, Context]: ...


class MaskedCall:
    """One forward of `network` for images x (F, C, H, W) at times t (F,). `modes`: of each block,
    for the images that have an activation cache. `pieces`: of the network, if not its own ones."""

    def __init__(
        self,
        network: Blocks,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        partials: Sequence[Partial],
        modes: Sequence[Mode],
        pieces: Pieces | None = None,
    ) -> None:
        self._network, self._shape = network, x.shape
        self._pieces = network.pieces if pieces is None else pieces
        self._rotary = network.rotary(x, conditioning)
        self._stream, context = network.begin(x, t, conditioning, self._rotary)
        self._modulation = torch.nn.functional.silu(context.temb)  # so all adaptive norms begin
        self._partials, self._modes = partials, modes
        [self._prompt], self._positions = conditioning.lengths, self._stream.image.shape[1]
        self._everything = torch.arange(self._positions, device=x.device)
        self._total = self._prompt + self._positions
        self._recorded = Recorded(partials, self._total)

    @cached_property
    def _all(self) -> Tokens:
        return Tokens.of([self._everything] * len(self._partials), self._prompt, self._rotary)

    @cached_property
    def _own(self) -> Tokens:
        """Those that ask."""
        masks = [self._everything if p.masked is None else p.masked for p in self._partials]
        return Tokens.of(masks, self._prompt, self._rotary)

    @cached_property
    def _buffers(self) -> torch.Tensor:
        """For keys and values of one image after another (2, heads, L + N, width)."""
        config = self._network.module.config
        heads, width = config.num_attention_heads, config.attention_head_dim
        return self._stream.image.new_empty(2, heads, self._total, width)

    @cached_property
    def _within(self) -> torch.Tensor:
        """Where `_own` are among `_all`."""
        each = self._own.split(self._own.places)
        return torch.cat([places + image * self._total for image, places in enumerate(each)])

    def run(self) -> torch.Tensor:
        """The answer (F, C, H, W), zero where tokens are not computed."""
        module = self._network.module
        doubles = len(module.transformer_blocks)
        hidden = torch.cat([self._stream.text, self._stream.image], dim=1).flatten(0, 1)
        complete = True
        for number, block in enumerate(
            (*module.transformer_blocks, *module.single_transformer_blocks)
        ):
            mode = self._modes[number]
            if mode == "keys_values" and complete:
                hidden = hidden.index_select(0, self._within)
            elif mode != "keys_values" and not complete:
                hidden = self._recorded.completed(f"output.{number - 1}", hidden, self._own)
            run = self._double if number < doubles else self._single
            hidden = run(block, number, hidden, mode)
            complete = mode == "full"
            self._recorded.record(f"output.{number}", hidden, self._tokens(mode)[1])
        return self._ended(hidden.index_select(0, self._within) if complete else hidden)

    # ----------------------------------------------------------------------------------- blocks

    def _double(self, block: Any, number: int, hidden: torch.Tensor, mode: Mode) -> torch.Tensor:
        """`FluxTransformerBlock.forward`: text and image have weights of their own."""
        attn, (tokens, asking) = block.attn, self._tokens(mode)
        prompts, own, ff_prompts, ff_own = self._pieces.doubles[number]
        modulation = block.norm1.linear(self._modulation).chunk(6, dim=1)
        text_modulation = block.norm1_context.linear(self._modulation).chunk(6, dim=1)
        asked = self._asking(hidden, mode)
        text, image = asking.prompts(asked), asking.own(asked)
        y = modulated(block.norm1_context.norm, text, text_modulation, asking.prompt_counts)
        x = given = modulated(block.norm1.norm, image, modulation, asking.own_counts)
        if asked is not hidden:
            given = modulated(block.norm1.norm, tokens.own(hidden), modulation, tokens.own_counts)
        text_q, q = (
            prompts.queries(y, asking.prompt_rotations),
            own.queries(x, asking.own_rotations),
        )
        text_k, text_v = prompts.keys_values(y, tokens.prompt_rotations)
        k, v = own.keys_values(given, tokens.own_rotations)
        together = (
            asking.together(text_q, q),
            tokens.together(text_k, k),
            tokens.together(text_v, v),
        )
        found = self._attended(number, mode, *together)
        out, text_out = attn.to_out[0](asking.own(found)), attn.to_add_out(asking.prompts(found))
        image = gated(image, modulation[2], out, asking.own_counts)
        text = gated(text, text_modulation[2], text_out, asking.prompt_counts)
        x = modulated(block.norm2, image, modulation[3:], asking.own_counts)
        y = modulated(block.norm2_context, text, text_modulation[3:], asking.prompt_counts)
        image = gated(image, modulation[5], ff_own(x), asking.own_counts)
        text = gated(text, text_modulation[5], ff_prompts(y), asking.prompt_counts)
        return asking.together(text, image)

    def _single(self, block: Any, number: int, hidden: torch.Tensor, mode: Mode) -> torch.Tensor:
        """`FluxSingleTransformerBlock.forward`: text and image share the weights."""
        tokens, asking = self._tokens(mode)
        heads, out = self._pieces.singles[number - len(self._pieces.doubles)]
        modulation = block.norm.linear(self._modulation).chunk(3, dim=1)
        asked = self._asking(hidden, mode)
        x = given = modulated(block.norm.norm, asked, modulation, asking.counts)
        if asked is not hidden:
            given = modulated(block.norm.norm, hidden, modulation, tokens.counts)
        q, (k, v) = heads.queries(x, asking.rotations), heads.keys_values(given, tokens.rotations)
        found = self._attended(number, mode, q, k, v)
        return gated(asked, modulation[2], out(found, x), asking.counts)

    def _attended(
        self, number: int, mode: Mode, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """What tokens that ask find, packed (T, D): q, k and v (T, heads, width)."""
        tokens, asking = self._tokens(mode)
        names = f"key.{number}", f"value.{number}"
        self._recorded.record(names[0], k, tokens)
        self._recorded.record(names[1], v, tokens)
        each = zip(asking.split(q), *map(tokens.split, (k, v, tokens.places)), strict=True)
        found = []
        for image, (queries, keys, values, places) in enumerate(each):
            if len(keys) == self._total:
                every = (x.transpose(0, 1).contiguous() for x in (keys, values))
                found.append(attention(queries, *every))
            else:
                recorded = (self._recorded.of(image, name) for name in names)
                computed = queries, keys, values, places
                found.append(self._pieces.attended(*computed, *recorded, *self._buffers))
        return joined(found)

    # ----------------------------------------------------------------------------------- tokens

    def _tokens(self, mode: Mode) -> tuple[Tokens, Tokens]:
        """Those that a block in this mode is given, and those that ask."""
        match mode:
            case "keys_values":
                return self._own, self._own
            case "outputs":
                return self._all, self._own
            case "full":
                return self._all, self._all

    def _asking(self, hidden: torch.Tensor, mode: Mode) -> torch.Tensor:
        return hidden.index_select(0, self._within) if mode == "outputs" else hidden

    def _ended(self, hidden: torch.Tensor) -> torch.Tensor:
        """`AdaLayerNormContinuous` and the last projection."""
        module, own = self._network.module, self._own
        scale, shift = module.norm_out.linear(self._modulation).chunk(2, dim=1)
        out = modulated(module.norm_out.norm, own.own(hidden), (shift, scale), own.own_counts)
        out = module.proj_out(out)
        tokens = out.new_zeros(len(self._partials), self._positions, out.shape[-1])
        for whole, places, part in zip(
            tokens, own.split(own.places), split(out, own.own_counts), strict=True
        ):
            whole[places[self._prompt :] - self._prompt] = part
        return unpacked(tokens, self._shape)
