"""What FLUX's blocks do to tokens whichever image they are of, and what tokens of one image do to
each other: functions of tensors alone, so that they may be run as graphs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from shared.host.torch_graph import Graph

Example = Callable[[int], tuple[torch.Tensor, ...]]
"""Arguments of a function, for so many tokens."""
Run = Callable[[Graph, Example], Graph]
"""How a function is run."""


class Heads(NamedTuple):
    """Of tokens x (T, D) and their `rotations`; see `rotated`."""

    queries: Graph
    """(T, heads, width)"""
    keys_values: Graph
    """(T, heads, width) each"""


class Double(NamedTuple):
    prompts: Heads
    own: Heads
    ff_prompts: Graph
    """(T, D) to (T, D)"""
    ff_own: Graph


class Single(NamedTuple):
    heads: Heads
    out: Graph
    """What tokens found and what they are, (T, D) each, to (T, D)"""


class Pieces(NamedTuple):
    doubles: tuple[Double, ...]
    singles: tuple[Single, ...]
    attended: Graph
    """See `attended`."""


def as_it_is(function: Graph, example: Example) -> Graph:
    return function


def pieces(module: Any, run: Run = as_it_is) -> Pieces:
    """Of a `FluxTransformer2DModel`."""
    examples = _Examples(module)

    def heads(attn: Any, prefix: str, suffix: str = "") -> Heads:
        to_q, to_k, to_v = (getattr(attn, f"{prefix}_{name}{suffix}") for name in "qkv")
        infix = "added_" if suffix else ""
        norm_q, norm_k = (getattr(attn, f"norm_{infix}{name}") for name in "qk")
        return Heads(
            run(_queries(to_q, norm_q, attn.head_dim), examples.placed),
            run(_keys_values(to_k, norm_k, to_v, attn.head_dim), examples.placed),
        )

    return Pieces(
        doubles=tuple(
            Double(
                heads(block.attn, "add", "_proj"),
                heads(block.attn, "to"),
                run(_ff(block.ff_context), examples.one),
                run(_ff(block.ff), examples.one),
            )
            for block in module.transformer_blocks
        ),
        singles=tuple(
            Single(heads(block.attn, "to"), run(_out(block), examples.two))
            for block in module.single_transformer_blocks
        ),
        attended=run(attended, examples.attended),
    )


def normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """`RMSNorm` of heads x (T, heads, width): torch's takes twice as many passes on a CPU."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = length.square_().div_(x.shape[-1]).add_(norm.eps).rsqrt_()
    scaled: torch.Tensor = (x * scale).mul_(norm.weight)
    return scaled.to(x.dtype)


def rotated(x: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Heads x (T, heads, width) by the rotary embedding of their places: each pair of channels is
    multiplied by `rotations` (T, 1, width / 2), complex."""
    pairs = torch.view_as_complex(x.float().view(x.shape[0], x.shape[1], -1, 2))
    return torch.view_as_real(pairs * rotations).flatten(-2).to(x.dtype)


def attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    places: torch.Tensor,
    recorded_k: torch.Tensor,
    recorded_v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """What some tokens of an image find in all of them: q, k and v (T, heads, width) are theirs,
    at `places` (T,) among the prompt's and the image's; all of the prompt's are there. (N, D) was
    recorded of the image's. Keys and values are put together in `keys` and `values` (heads, L + N,
    width), where each head's lie together, as attention reads them. Returns (T, D)."""
    for whole, computed, recorded in ((keys, k, recorded_k), (values, v, recorded_v)):
        tokens, count = whole.transpose(0, 1), recorded.shape[0]
        by_heads = recorded.view(count, whole.shape[0], whole.shape[2])
        tokens.narrow(0, tokens.shape[0] - count, count).copy_(by_heads)  # to the network's dtype
        tokens[places] = computed
    return attention(q, keys, values)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Of one image: q (Q, heads, width), k and v (heads, K, width). Returns (Q, D)."""
    found = scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None])
    return found[0].transpose(0, 1).flatten(1)


def _heads(packed: torch.Tensor, width: int) -> torch.Tensor:
    return packed.view(packed.shape[0], -1, width)


def _queries(to_q: Any, norm: Any, width: int) -> Graph:
    return lambda x, rotations: rotated(normed(norm, _heads(to_q(x), width)), rotations)


def _keys_values(to_k: Any, norm: Any, to_v: Any, width: int) -> Graph:
    def run(x: torch.Tensor, rotations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        k = rotated(normed(norm, _heads(to_k(x), width)), rotations)
        return k, _heads(to_v(x), width)

    return run


def _ff(layers: Any) -> Graph:
    """`FeedForward.forward`."""
    activated, _, out = layers.net
    return lambda x: out(_gelu(activated.proj(x)))


def _out(block: Any) -> Graph:
    """The end of `FluxSingleTransformerBlock.forward`."""

    def run(found: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        mlp, weight, first = _gelu(block.proj_mlp(x)), block.proj_out.weight, found.shape[1]
        # Its product with what was found, and then with the rest, which need not be made one.
        out = linear(found, weight[:, :first], block.proj_out.bias)
        return out.addmm_(mlp, weight[:, first:].t())

    return run


def _gelu(x: torch.Tensor) -> torch.Tensor:
    """By tanh: as x · σ(2u), with u = √(2/π) (x + 0.044715 x³), which takes two thirds of the time
    of torch's own on a CPU."""
    if x.device.type != "cpu":
        return gelu(x, approximate="tanh")
    wide = x.float()
    slope = 2.0 * math.sqrt(2.0 / math.pi)
    sigma = wide.square().mul_(0.044715 * slope).add_(slope).mul_(wide).sigmoid_()
    return sigma.mul_(wide).to(x.dtype)


class _Examples:
    """Arguments for so many tokens, drawn from a fixed seed."""

    def __init__(self, module: Any) -> None:
        self._like: torch.Tensor = module.x_embedder.weight
        self._heads = module.config.num_attention_heads
        self._width = module.config.attention_head_dim

    def one(self, tokens: int) -> tuple[torch.Tensor, ...]:
        return (self._drawn(tokens, self._heads * self._width),)

    def two(self, tokens: int) -> tuple[torch.Tensor, ...]:
        return (*self.one(tokens), *self.one(tokens))

    def placed(self, tokens: int) -> tuple[torch.Tensor, ...]:
        angles = self._drawn(tokens, 1, self._width // 2).float()
        return (*self.one(tokens), torch.polar(torch.ones_like(angles), angles))

    def attended(self, tokens: int) -> tuple[torch.Tensor, ...]:
        """Half of all the image's are recorded, and all but two of these are not computed."""
        prompt = tokens // 2
        places = torch.arange(prompt + 2, device=self._like.device)
        heads = self._drawn(3, len(places), self._heads, self._width)
        recorded = self._drawn(2, tokens - prompt, self._heads * self._width).half()
        return (*heads, places, *recorded, *self._drawn(2, self._heads, tokens, self._width))

    def _drawn(self, *shape: int) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(shape[0])
        return torch.randn(shape, generator=drawn).to(self._like)
