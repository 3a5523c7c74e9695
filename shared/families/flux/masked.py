"""FLUX's transformer for images of which only some tokens change: InstGenIE (arXiv 2505.20600 §4).

Only masked tokens ask: queries, attention rows, output projections and feed-forward run for them
alone. What they attend to is everything: keys and values of unmasked tokens come from what was
recorded when the whole template was computed at the same step. Images of one call may have
different masks, and some none: tokens of all images lie packed, one behind the other, and only
attention is done image by image, so that nothing is padded to the largest mask.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from shared.families.flux.packed import (
    Tokens,
    attention,
    gated,
    heads,
    joined,
    modulated,
    normed,
    split,
    turned,
)
from shared.families.flux.recorded import Recorded
from shared.families.flux.transformer import FluxTransformer, unpacked
from shared.families.network import Conditioning, Mode, Partial


class MaskedCall:
    """One forward of `network` for images x (F, C, H, W) at times t (F,). `modes`: of each block,
    for the images that have a template."""

    def __init__(
        self,
        network: FluxTransformer,
        x: torch.Tensor,
        t: torch.Tensor,
        told: Conditioning,
        partials: Sequence[Partial],
        modes: Sequence[Mode],
    ) -> None:
        self._network, self._shape = network, x.shape
        self._rotary = network.rotary(x, told)
        self._stream, context = network.begin(x, t, told, self._rotary)
        self._told = torch.nn.functional.silu(context.temb)  # so all adaptive norms begin
        self._partials, self._modes = partials, modes
        self._prompt, self._positions = told.embeds.shape[1], self._stream.image.shape[1]
        self._everything = torch.arange(self._positions, device=x.device)
        self._recorded = Recorded(partials, self._prompt + self._positions)

    @cached_property
    def _all(self) -> Tokens:
        return Tokens.of([self._everything] * len(self._partials), self._prompt, self._rotary)

    @cached_property
    def _own(self) -> Tokens:
        """Those that ask."""
        masks = [self._everything if p.masked is None else p.masked for p in self._partials]
        return Tokens.of(masks, self._prompt, self._rotary)

    @cached_property
    def _within(self) -> torch.Tensor:
        """Where `_own` are among `_all`."""
        total = self._prompt + self._positions
        each = self._own.split(self._own.places)
        return torch.cat([places + image * total for image, places in enumerate(each)])

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
        own = block.norm1.linear(self._told).chunk(6, dim=1)
        others = block.norm1_context.linear(self._told).chunk(6, dim=1)
        asked = self._asking(hidden, mode)
        text, image = asking.prompts(asked), asking.own(asked)
        y = modulated(block.norm1_context.norm, text, others, asking.prompt_counts)
        x = given = modulated(block.norm1.norm, image, own, asking.own_counts)
        if asked is not hidden:
            given = modulated(block.norm1.norm, tokens.own(hidden), own, tokens.own_counts)
        width = attn.head_dim
        found = self._attended(
            number,
            mode,
            asking.together(
                normed(attn.norm_added_q, heads(attn.add_q_proj(y), width)),
                normed(attn.norm_q, heads(attn.to_q(x), width)),
            ),
            tokens.together(
                normed(attn.norm_added_k, heads(attn.add_k_proj(y), width)),
                normed(attn.norm_k, heads(attn.to_k(given), width)),
            ),
            heads(tokens.together(attn.add_v_proj(y), attn.to_v(given)), width),
        )
        image = gated(image, own[2], attn.to_out[0](asking.own(found)), asking.own_counts)
        text = gated(text, others[2], attn.to_add_out(asking.prompts(found)), asking.prompt_counts)
        ff = block.ff(modulated(block.norm2, image, own[3:], asking.own_counts))
        image = gated(image, own[5], ff, asking.own_counts)
        ff = block.ff_context(
            modulated(block.norm2_context, text, others[3:], asking.prompt_counts)
        )
        return asking.together(gated(text, others[5], ff, asking.prompt_counts), image)

    def _single(self, block: Any, number: int, hidden: torch.Tensor, mode: Mode) -> torch.Tensor:
        """`FluxSingleTransformerBlock.forward`: text and image share the weights."""
        attn, (tokens, asking) = block.attn, self._tokens(mode)
        told = block.norm.linear(self._told).chunk(3, dim=1)
        asked = self._asking(hidden, mode)
        x = given = modulated(block.norm.norm, asked, told, asking.counts)
        if asked is not hidden:
            given = modulated(block.norm.norm, hidden, told, tokens.counts)
        width = attn.head_dim
        found = self._attended(
            number,
            mode,
            normed(attn.norm_q, heads(attn.to_q(x), width)),
            normed(attn.norm_k, heads(attn.to_k(given), width)),
            heads(attn.to_v(given), width),
        )
        mlp = block.act_mlp(block.proj_mlp(x))
        out = block.proj_out(torch.cat([found, mlp], dim=-1))
        return gated(asked, told[2], out, asking.counts)

    def _attended(
        self, number: int, mode: Mode, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """What tokens that ask find, packed (T, D): q, k and v (T, heads, width)."""
        tokens, asking = self._tokens(mode)
        q, k = turned(q, asking.turns), turned(k, tokens.turns)
        key, value = f"key.{number}", f"value.{number}"
        self._recorded.record(key, k, tokens)
        self._recorded.record(value, v, tokens)
        found = []
        each = zip(asking.split(q), tokens.split(k), tokens.split(v), strict=True)
        for image, (queries, keys, values) in enumerate(each):
            keys = self._recorded.heads(image, key, keys, tokens)
            values = self._recorded.heads(image, value, values, tokens)
            found.append(attention(queries, keys, values))
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
