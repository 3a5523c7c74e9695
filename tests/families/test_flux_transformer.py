"""FLUX's transformer, run block by block by us, is diffusers', bit for bit."""

from typing import Any

import pytest
import torch

from shared.models.contracts.network import Conditioning
from shared.models.families.flux.stream import packed, unpacked
from shared.models.families.flux.traced import TracedTransformer, traced
from shared.models.families.flux.transformer import FluxTransformer
from tests.helpers.flux import POOLED, TOKENS, WIDTH, make_transformer

SHAPE = (3, 4, 8, 12)


def example(guided: bool) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    drawn = torch.Generator().manual_seed(0)
    conditioning = Conditioning(
        {
            "embeds": torch.randn(3, TOKENS, WIDTH, generator=drawn),
            "pooled": torch.randn(3, POOLED, generator=drawn),
        },
        torch.tensor([[3.5], [1.0], [7.0]]) if guided else torch.zeros(3, 0),
    )
    return torch.randn(SHAPE, generator=drawn), torch.tensor([933.3, 17.7, 500.0]), conditioning


def by_diffusers(
    module: Any, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    """As `FluxPipeline` calls it."""
    ids = torch.zeros(4, 6, 3)
    ids[..., 1] += torch.arange(4)[:, None]
    ids[..., 2] += torch.arange(6)[None]
    (out,) = module(
        hidden_states=packed(x),
        timestep=t / 1000,
        guidance=conditioning.scalars[:, 0] if module.config.guidance_embeds else None,
        pooled_projections=conditioning.tensors["pooled"],
        encoder_hidden_states=conditioning.tensors["embeds"],
        txt_ids=torch.zeros(TOKENS, 3),
        img_ids=ids.view(-1, 3),
        return_dict=False,
    )
    return unpacked(out, x.shape)


@pytest.mark.parametrize("guided", [False, True])
@torch.inference_mode()
def test_block_by_block_gives_the_bits_that_diffusers_gives(guided: bool) -> None:
    torch.set_num_threads(1)
    network, (x, t, conditioning) = FluxTransformer(make_transformer(guided)), example(guided)
    assert len(network.blocks) == 4
    found = network.predict(x, t, conditioning)
    assert torch.equal(found, by_diffusers(network.module, x, t, conditioning))
    stream, context = network.begin(x, t, conditioning, network.rotary(x, conditioning))
    for block in network.blocks:
        stream = block(stream, context)
    assert torch.equal(network.end(stream, context, x.shape), found)


@torch.inference_mode()
def test_guidance_is_told_to_each_image_of_its_own() -> None:
    network, (x, t, conditioning) = FluxTransformer(make_transformer(True)), example(True)
    found = network.predict(x, t, conditioning)
    other = network.predict(
        x, t, conditioning._replace(scalars=torch.tensor([[3.5], [4.0], [7.0]]))
    )
    changed = (found - other).flatten(1).abs().amax(1)
    assert changed[1] > 1e-3
    assert changed[0] == changed[2] == 0.0


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("images", "height", "width", "tokens"), [(1, 1, 1, 5), (7, 3, 8, 77)])
@torch.inference_mode()
def test_a_graph_answers_as_its_network_for_any_shape(
    guided: bool, images: int, height: int, width: int, tokens: int
) -> None:
    network = FluxTransformer(make_transformer(guided))
    graph = traced(network)
    assert isinstance(graph, TracedTransformer)
    for weights in network.module.parameters():
        weights.mul_(1.5)
    arguments = network.example(images, height, width, tokens)
    assert torch.equal(graph.predict(*arguments), network.predict(*arguments))


def test_patches_are_taken_apart_as_they_were_put_together() -> None:
    x = torch.randn(SHAPE)
    assert torch.equal(unpacked(packed(x), x.shape), x)
    first = packed(x)[0, 0].view(4, 2, 2)
    assert torch.equal(first, x[0, :, :2, :2])
