"""FLUX's transformer for images of which only some tokens change: InstGenIE (arXiv 2505.20600 §4).

Only masked tokens ask: queries, attention rows, output projections and feed-forward run for them
alone. What they attend to is everything: keys and values of unmasked tokens come from what was
recorded when the whole template was computed at the same step. Images of one call may have
different masks, and some none: tokens of all images lie packed, one behind the other, and only
attention is done image by image, so that nothing is padded to the largest mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from shared.families.flux.transformer import FluxTransformer, Rotary, unpacked
from shared.families.network import Conditioning, Mode, Partial


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Some tokens of F images, packed (T,): `image` and `place` of each, and how many each image
    has. Tokens of one image are neighbours."""

    image: torch.Tensor
    place: torch.Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, places: Sequence[torch.Tensor]) -> "Tokens":
        counts = tuple(len(each) for each in places)
        device = places[0].device
        image = torch.repeat_interleave(
            torch.arange(len(counts), device=device), torch.tensor(counts, device=device)
        )
        return cls(image, torch.cat(list(places)), counts)


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
        self._rotary: Rotary = network.rotary(x, told)
        stream, context = network.begin(x, t, told, self._rotary)
        self._temb = context.temb
        images, length, width = stream.text.shape
        self._positions = stream.image.shape[1]
        everything = torch.arange(self._positions, device=x.device)
        self._all = Tokens.of([everything] * images)
        self._own = Tokens.of([everything if p.masked is None else p.masked for p in partials])
        self._text = Tokens.of([torch.arange(length, device=x.device)] * images)
        self._within = self._own.image * self._positions + self._own.place
        self._partials, self._modes = partials, modes
        self._width = width
        self._text_hidden = stream.text.reshape(-1, width)
        self._embedded = stream.image.reshape(-1, width)

    def run(self) -> torch.Tensor:
        """The answer (F, C, H, W), zero where tokens are not computed."""
        text, hidden, complete = self._text_hidden, self._embedded, True
        blocks = self._network.module
        doubles = len(blocks.transformer_blocks)
        for number, block in enumerate(
            (*blocks.transformer_blocks, *blocks.single_transformer_blocks)
        ):
            mode = self._modes[number]
            if mode == "keys_values" and complete:
                hidden, complete = hidden[self._within], False
            elif mode != "keys_values" and not complete:
                hidden, complete = self._completed(hidden, number - 1), True
            run = self._double if number < doubles else self._single
            text, hidden = run(block, number, text, hidden, mode)
            complete = mode == "full"
            self._record(f"output.{number}", hidden, self._tokens(mode)[1])
        own = hidden[self._within] if complete else hidden
        return self._ended(own)

    # ----------------------------------------------------------------------------------- blocks

    def _double(
        self, block: Any, number: int, text: torch.Tensor, hidden: torch.Tensor, mode: Mode
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`FluxTransformerBlock.forward`."""
        attn, (tokens, asking) = block.attn, self._tokens(mode)
        own = _chunks(block.norm1, self._temb, 6)
        others = _chunks(block.norm1_context, self._temb, 6)
        normed = _modulated(block.norm1.norm(hidden), own[0], own[1], tokens)
        text_normed = _modulated(block.norm1_context.norm(text), others[0], others[1], self._text)
        asks = self._asking(normed, mode)
        text_q = attn.norm_added_q(self._heads(attn, attn.add_q_proj(text_normed)))
        text_k = attn.norm_added_k(self._heads(attn, attn.add_k_proj(text_normed)))
        text_v = self._heads(attn, attn.add_v_proj(text_normed))
        attended_text, attended = self._attended(
            attn, number, mode, (text_q, text_k, text_v), (asks, normed)
        )
        hidden = self._asking(hidden, mode)
        hidden = hidden + own[2][asking.image] * attn.to_out[0](attended)
        text = text + others[2][self._text.image] * attn.to_add_out(attended_text)
        ff = block.ff(_modulated(block.norm2(hidden), own[3], own[4], asking))
        hidden = hidden + own[5][asking.image] * ff
        text_ff = block.ff_context(
            _modulated(block.norm2_context(text), others[3], others[4], self._text)
        )
        return text + others[5][self._text.image] * text_ff, hidden

    def _single(
        self, block: Any, number: int, text: torch.Tensor, hidden: torch.Tensor, mode: Mode
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`FluxSingleTransformerBlock.forward`: text and image share the weights."""
        attn, (tokens, asking) = block.attn, self._tokens(mode)
        shift, scale, gate = _chunks(block.norm, self._temb, 3)
        normed = _modulated(block.norm.norm(hidden), shift, scale, tokens)
        text_normed = _modulated(block.norm.norm(text), shift, scale, self._text)
        asks = self._asking(normed, mode)
        text_q = attn.norm_q(self._heads(attn, attn.to_q(text_normed)))
        text_k = attn.norm_k(self._heads(attn, attn.to_k(text_normed)))
        text_v = self._heads(attn, attn.to_v(text_normed))
        attended = self._attended(attn, number, mode, (text_q, text_k, text_v), (asks, normed))
        both = torch.cat([text_normed, asks])
        mlp = block.act_mlp(block.proj_mlp(both))
        out = block.proj_out(torch.cat([torch.cat(attended), mlp], dim=-1))
        text_out, own_out = out.split([len(text), len(asks)])
        hidden = self._asking(hidden, mode) + gate[asking.image] * own_out
        return text + gate[self._text.image] * text_out, hidden

    # -------------------------------------------------------------------------------- attention

    def _attended(
        self,
        attn: Any,
        number: int,
        mode: Mode,
        text: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        image: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of text and image tokens, packed (T, D). `text`: its queries, keys and values (T, heads,
        width); `image`: the normed tokens that ask, and those that have keys and values."""
        tokens, asking = self._tokens(mode)
        length = self._text.counts[0]
        q = self._placed(attn.norm_q(self._heads(attn, attn.to_q(image[0]))), asking, length)
        k = self._placed(attn.norm_k(self._heads(attn, attn.to_k(image[1]))), tokens, length)
        v = self._heads(attn, attn.to_v(image[1]))
        self._record(f"key.{number}", k, tokens)
        self._record(f"value.{number}", v, tokens)
        text_q, text_k = (self._placed(each, self._text, 0) for each in text[:2])
        keys = self._whole(text_k, k, number, "key", mode)
        values = self._whole(text[2], v, number, "value", mode)
        asks = zip(_split(text_q, self._text.counts), _split(q, asking.counts), strict=True)
        found_text, found = [], []
        for i, queries in enumerate(asks):
            out = _attention(torch.cat(queries), keys[i], values[i])
            found_text.append(out[:length])
            found.append(out[length:])
        return torch.cat(found_text), torch.cat(found)

    def _whole(
        self, text: torch.Tensor, computed: torch.Tensor, number: int, name: str, mode: Mode
    ) -> list[torch.Tensor]:
        """Keys or values of all tokens of each image, those of the prompt first (heads, L + N,
        width): each head's lie together, as attention reads them."""
        tokens, _ = self._tokens(mode)
        length, (_, heads, width) = self._text.counts[0], computed.shape
        wholes = []
        for partial, prompt, own in zip(
            self._partials,
            _split(text, self._text.counts),
            _split(computed, tokens.counts),
            strict=True,
        ):
            whole = computed.new_empty(heads, length + self._positions, width)
            whole[:, :length] = prompt.transpose(0, 1)
            if mode != "keys_values" or partial.masked is None:
                whole[:, length:] = own.transpose(0, 1)
            else:
                assert partial.recorded is not None
                recorded = partial.recorded[f"{name}.{number}"].view(-1, heads, width)
                whole[:, length:] = recorded.transpose(0, 1)  # in this network's dtype
                whole[:, length:].index_copy_(1, partial.masked, own.transpose(0, 1))
            wholes.append(whole)
        return wholes

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
        return hidden[self._within] if mode == "outputs" else hidden

    def _completed(self, hidden: torch.Tensor, number: int) -> torch.Tensor:
        """`hidden` of computed tokens, and of the others what block `number` recorded."""
        whole = []
        for partial, own in zip(self._partials, _split(hidden, self._own.counts), strict=True):
            if partial.masked is None:
                whole.append(own)
                continue
            assert partial.recorded is not None
            recorded = partial.recorded[f"output.{number}"].to(own)
            whole.append(recorded.index_copy(0, partial.masked, own))
        return torch.cat(whole)

    def _record(self, name: str, tensor: torch.Tensor, tokens: Tokens) -> None:
        """Of whole images, what somebody wants to keep: (N, D), as float16."""
        parts = zip(
            self._partials,
            _split(tensor, tokens.counts),
            _split(tokens.place, tokens.counts),
            strict=True,
        )
        for partial, own, places in parts:
            if partial.record is None or not name.startswith(partial.kinds):
                continue
            kept = own.flatten(1).to(torch.float16)
            if partial.masked is not None:
                assert partial.recorded is not None
                assert partial.renewed is not None
                new = torch.isin(places, partial.renewed)
                before = partial.recorded[name].to(kept)
                kept = before.index_copy(0, places[new], kept[new])
            partial.record[name] = kept

    def _heads(self, attn: Any, packed_tokens: torch.Tensor) -> torch.Tensor:
        return packed_tokens.view(len(packed_tokens), -1, attn.head_dim)

    def _placed(self, x: torch.Tensor, tokens: Tokens, first: int) -> torch.Tensor:
        """x (T, heads, width) turned by the rotary embedding of its tokens' places."""
        cos, sin = (table[first + tokens.place][:, None] for table in self._rotary)
        real, imaginary = x.view(*x.shape[:-1], -1, 2).unbind(-1)
        turned = torch.stack([-imaginary, real], dim=-1).flatten(-2)
        return (x.float() * cos + turned.float() * sin).to(x.dtype)

    def _ended(self, hidden: torch.Tensor) -> torch.Tensor:
        """`AdaLayerNormContinuous` and the last projection."""
        module = self._network.module
        scale, shift = _chunks(module.norm_out, self._temb, 2)
        out = module.proj_out(_modulated(module.norm_out.norm(hidden), shift, scale, self._own))
        tokens = out.new_zeros(len(self._partials) * self._positions, out.shape[-1])
        tokens[self._within] = out
        return unpacked(tokens.view(len(self._partials), self._positions, -1), self._shape)


def _split(packed: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
    """What is each image's."""
    return list(torch.split(packed, list(counts)))


def _chunks(norm: Any, temb: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
    """What an adaptive norm makes of time and prompt: (F, D) each."""
    return norm.linear(norm.silu(temb).to(temb.dtype)).chunk(parts, dim=1)  # type: ignore[no-any-return]


def _modulated(
    normed: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, tokens: Tokens
) -> torch.Tensor:
    return normed * (1 + scale[tokens.image]) + shift[tokens.image]


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Of one image: q (Q, heads, width), k and v (heads, K, width). Returns (Q, D)."""
    found = scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None])
    return found[0].transpose(0, 1).flatten(1)
