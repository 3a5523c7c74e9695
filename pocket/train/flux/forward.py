"""The FLUX transformer's forward pass in bfloat16, laid out for training on a CPU.

It computes what `FluxTransformer2DModel.forward` does, from the same parameters, in about half of
the time. At this size a step is not its matrix products but everything between them: so the
rotation and the normalisation of queries and keys are one function with a backward of its own,
attention is plain matrix products (the fused kernel's CPU backward takes three times as long),
and nothing is concatenated that can be added.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

HALF = torch.bfloat16
EPS = 1e-6  # of every normalisation in FLUX


class FluxForward:
    """Calls a model for one layout of tokens: text before a square of image tokens."""

    def __init__(self, model: FluxTransformer2DModel, text_tokens: int, side: int) -> None:
        """`model` may go on changing: its parameters are read at each call."""
        self.model = model
        self.heads: int = model.config.num_attention_heads
        device = model.x_embedder.weight.device
        ids = torch.cat([torch.zeros(text_tokens, 3), image_ids(side)]).to(device)
        cos, sin = model.pos_embed(ids)
        # Angles come twice in a row, one for each of a pair.
        self._angles = cos[:, None, ::2].to(HALF), sin[:, None, ::2].to(HALF)
        size: int = model.config.attention_head_dim
        # Pairs of neighbours become pairs of halves: contiguous, and the same products.
        order = torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)]).to(device)
        self._in_head = order
        rows = torch.arange(self.heads, device=device)[:, None] * size
        self._rows = (rows + order).flatten()

    def __call__(self, x: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
        """The velocity (n, side * side, 16) in float32, of packed latents `x` at times `t`."""
        model, count = self.model, hidden.shape[1]
        cond = F.silu(model.time_text_embed(1000 * t, pooled)).to(HALF)
        image = _linear(x.to(HALF), model.x_embedder)
        text = _linear(hidden.to(HALF), model.context_embedder)
        for block in model.transformer_blocks:
            text, image = self._double(block, text, image, cond)
        both = torch.cat([text, image], 1)
        for block in model.single_transformer_blocks:
            both = self._single(block, both, cond)
        scale, shift = _linear(cond, model.norm_out.linear)[:, None].chunk(2, -1)
        return _linear(_modulated(both[:, count:], shift, scale), model.proj_out).float()

    def _double(
        self, block: Any, text: Tensor, image: Tensor, cond: Tensor
    ) -> tuple[Tensor, Tensor]:
        attn, count = block.attn, text.shape[1]
        into, mods = [], []
        streams = (
            (text, block.norm1_context, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj),
            (image, block.norm1, attn.to_q, attn.to_k, attn.to_v),
        )
        norms = ((attn.norm_added_q, attn.norm_added_k), (attn.norm_q, attn.norm_k))
        start = 0
        for (x, norm, *projections), qk_norms in zip(streams, norms, strict=True):
            mods.append(_linear(cond, norm.linear)[:, None].chunk(6, -1))
            normed = _modulated(x, mods[-1][0], mods[-1][1])
            into.append(self._heads(normed, projections, qk_norms, start))
            start += x.shape[1]
        mixed = _attend(*(torch.cat(parts, 2) for parts in zip(*into, strict=True)))
        outs = (attn.to_add_out, attn.to_out[0])
        feeds, results = (block.ff_context, block.ff), []
        for n, (x, part) in enumerate(
            zip((text, image), torch.split(mixed, [count, image.shape[1]], 1), strict=True)
        ):
            _, _, gate, shift, scale, feed_gate = mods[n]
            x = torch.addcmul(x, gate, _linear(part, outs[n]))
            inner = F.gelu(
                _linear(_modulated(x, shift, scale), feeds[n].net[0].proj), approximate="tanh"
            )
            results.append(torch.addcmul(x, feed_gate, _linear(inner, feeds[n].net[2])))
        return results[0], results[1]

    def _single(self, block: Any, x: Tensor, cond: Tensor) -> Tensor:
        attn, width = block.attn, x.shape[-1]
        shift, scale, gate = _linear(cond, block.norm.linear)[:, None].chunk(3, -1)
        normed = _modulated(x, shift, scale)
        inner = F.gelu(_linear(normed, block.proj_mlp), approximate="tanh")
        heads = self._heads(
            normed, [attn.to_q, attn.to_k, attn.to_v], (attn.norm_q, attn.norm_k), 0
        )
        weight = block.proj_out.weight.to(HALF)
        out = F.linear(inner, weight[:, width:], block.proj_out.bias.to(HALF))
        out = out + F.linear(_attend(*heads), weight[:, :width])
        return torch.addcmul(x, gate, out)

    def _heads(
        self, x: Tensor, projections: list[nn.Linear], norms: tuple[Any, Any], start: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (n, heads, tokens, size); queries are scaled for attention."""
        q, k, v = projections
        weight = torch.cat([q.weight[self._rows], k.weight[self._rows], v.weight]).to(HALF)
        bias = torch.cat([q.bias[self._rows], k.bias[self._rows], v.bias]).to(HALF)
        joined = F.linear(x, weight, bias)
        split = joined.view(*joined.shape[:2], 3, self.heads, -1).unbind(2)
        cos, sin = (angle[start : start + x.shape[1]] for angle in self._angles)
        size = split[0].shape[-1]
        gains = norms[0].weight[self._in_head] * size**-0.5, norms[1].weight[self._in_head]
        query, key = (
            _rotated(part, gain.to(HALF), cos, sin)
            for part, gain in zip(split, gains, strict=False)
        )
        return query, key, split[2].transpose(1, 2).contiguous()


def image_ids(side: int) -> Tensor:
    """FLUX's positions of a square of tokens: (side * side, 3), of zero, row, column."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float()


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight.to(HALF), layer.bias.to(HALF))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(n, heads, tokens, size) each, to (n, tokens, heads * size)."""
    weights = (query @ key.transpose(-1, -2)).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class _Rotated(torch.autograd.Function):
    """Norm, gain and rotation: (n, tokens, heads, size) to (n, heads, tokens, size)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        size = x.shape[-1]
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = (length.square() / size + EPS).rsqrt().to(x.dtype)
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, gain, cos, sin)
        return _rotate(unit * gain, cos, sin, transposed=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        unit, inverse, gain, cos, sin = ctx.saved_tensors
        turned = _rotate(grad.transpose(1, 2), cos, -sin)
        product = turned * unit
        gain_grad = product.sum((0, 1, 2), dtype=torch.float32).to(gain.dtype)
        along = (product @ gain / gain.shape[0]).unsqueeze(-1)
        x_grad = torch.addcmul(turned.mul_(gain), unit, along, value=-1).mul_(inverse)
        return x_grad, gain_grad, None, None


_rotated: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _Rotated.apply


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, transposed: bool = False) -> Tensor:
    """Turn the pairs (x[i], x[i + size / 2]) of (n, tokens, heads, size) by each token's angles."""
    if transposed:
        n, tokens, heads, size = x.shape
        out = x.new_empty(n, heads, tokens, size)
        first, second = out.transpose(1, 2).chunk(2, -1)
    else:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        first, second = out.chunk(2, -1)
    real, imaginary = x.chunk(2, -1)
    torch.mul(real, cos, out=first).addcmul_(imaginary, sin, value=-1)
    torch.mul(imaginary, cos, out=second).addcmul_(real, sin)
    return out
