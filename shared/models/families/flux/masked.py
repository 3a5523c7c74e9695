"""FLUX's transformer for images of which only some tokens change: InstGenIE (arXiv 2505.20600 §4).

Only masked tokens ask: queries, attention rows, output projections and feed-forward run for them
alone. What they attend to is everything: keys and values of unmasked tokens come from what was
recorded when the whole template was computed at the same step. Images of one call may have
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

    def rotary(self, x: torch.Tensor, told: Conditioning) -> Rotary: ...

    def begin(
        self, x: torch.Tensor, t: torch.Tensor, told: Conditioning, rotary: Rotary
    ) -> tuple[Stream, Context]: ...


class MaskedCall:
    """One forward of `network` for images x (F, C, H, W) at times t (F,). `modes`: of each block,
    for the images that have a template. `pieces`: of the network, if not its own ones."""

    def __init__(
        self,
        network: Blocks,
        x: torch.Tensor,
        t: torch.Tensor,
        told: Conditioning,
        partials: Sequence[Partial],
        modes: Sequence[Mode],
        pieces: Pieces | None = None,
    ) -> None:
        self._network, self._shape = network, x.shape
        self._pieces = network.pieces if pieces is None else pieces
        self._rotary = network.rotary(x, told)
        self._stream, context = network.begin(x, t, told, self._rotary)
        self._told = torch.nn.functional.silu(context.temb)  # so all adaptive norms begin
        self._partials, self._modes = partials, modes
        [self._prompt], self._positions = told.lengths, self._stream.image.shape[1]
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
    def _room(self) -> torch.Tensor:
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
        told = block.norm1.linear(self._told).chunk(6, dim=1)
        told_text = block.norm1_context.linear(self._told).chunk(6, dim=1)
        asked = self._asking(hidden, mode)
        text, image = asking.prompts(asked), asking.own(asked)
        y = modulated(block.norm1_context.norm, text, told_text, asking.prompt_counts)
        x = given = modulated(block.norm1.norm, image, told, asking.own_counts)
        if asked is not hidden:
            given = modulated(block.norm1.norm, tokens.own(hidden), told, tokens.own_counts)
        text_q, q = prompts.queries(y, asking.prompt_turns), own.queries(x, asking.own_turns)
        text_k, text_v = prompts.keys_values(y, tokens.prompt_turns)
        k, v = own.keys_values(given, tokens.own_turns)
        together = (
            asking.together(text_q, q),
            tokens.together(text_k, k),
            tokens.together(text_v, v),
        )
        found = self._attended(number, mode, *together)
        out, text_out = attn.to_out[0](asking.own(found)), attn.to_add_out(asking.prompts(found))
        image = gated(image, told[2], out, asking.own_counts)
        text = gated(text, told_text[2], text_out, asking.prompt_counts)
        x = modulated(block.norm2, image, told[3:], asking.own_counts)
        y = modulated(block.norm2_context, text, told_text[3:], asking.prompt_counts)
        image = gated(image, told[5], ff_own(x), asking.own_counts)
        text = gated(text, told_text[5], ff_prompts(y), asking.prompt_counts)
        return asking.together(text, image)

    def _single(self, block: Any, number: int, hidden: torch.Tensor, mode: Mode) -> torch.Tensor:
        """`FluxSingleTransformerBlock.forward`: text and image share the weights."""
        tokens, asking = self._tokens(mode)
        heads, out = self._pieces.singles[number - len(self._pieces.doubles)]
        told = block.norm.linear(self._told).chunk(3, dim=1)
        asked = self._asking(hidden, mode)
        x = given = modulated(block.norm.norm, asked, told, asking.counts)
        if asked is not hidden:
            given = modulated(block.norm.norm, hidden, told, tokens.counts)
        q, (k, v) = heads.queries(x, asking.turns), heads.keys_values(given, tokens.turns)
        found = self._attended(number, mode, q, k, v)
        return gated(asked, told[2], out(found, x), asking.counts)

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
                found.append(self._pieces.attended(*computed, *recorded, *self._room))
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
        scale, shift = module.norm_out.linear(self._told).chunk(2, dim=1)
        out = modulated(module.norm_out.norm, own.own(hidden), (shift, scale), own.own_counts)
        out = module.proj_out(out)
        tokens = out.new_zeros(len(self._partials), self._positions, out.shape[-1])
        for whole, places, part in zip(
            tokens, own.split(own.places), split(out, own.own_counts), strict=True
        ):
            whole[places[self._prompt :] - self._prompt] = part
        return unpacked(tokens, self._shape)
