"""The network as a graph: the same bits, or not at all."""

import logging

import pytest
import torch

from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.traced import TracedUnet, traced
from tests.services.denoiser.models import make_unet


@pytest.fixture
def unet() -> SdxlUnet:
    torch.set_num_threads(1)
    return SdxlUnet(make_unet())


@pytest.fixture(scope="module")
def drawn() -> tuple[SdxlUnet, TracedUnet]:
    """A network, and its graph."""
    torch.set_num_threads(1)
    network = SdxlUnet(make_unet())
    graph = traced(network)
    assert isinstance(graph, TracedUnet)
    return network, graph


@pytest.mark.parametrize("images", [1, 2, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (3, 8)])
@pytest.mark.parametrize("tokens", [5, 77])
@torch.inference_mode()
def test_a_graph_answers_as_its_network_for_any_shape(
    drawn: tuple[SdxlUnet, TracedUnet], images: int, height: int, width: int, tokens: int
) -> None:
    unet, graph = drawn
    example = unet.example(images, height, width, tokens)
    assert torch.equal(graph.predict(*example), unet.predict(*example))


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("controlled", [False, True])
@torch.inference_mode()
def test_the_two_halves_give_the_bits_that_diffusers_gives(
    unet: SdxlUnet, side: int, controlled: bool
) -> None:
    x, t, conditioning = unet.example(2, side, side, 5)
    x = x[..., :side, :side]
    halfway = unet.encode(x, t, *unet.inputs.tensors(conditioning))
    residuals = [torch.randn_like(output) for output in (*halfway[2:], halfway[0])]
    control = {
        "down_block_additional_residuals": residuals[:-1],
        "mid_block_additional_residual": residuals[-1],
    }
    (expected,) = unet.module(
        x,
        t,
        encoder_hidden_states=conditioning.tensors["embeds"],
        added_cond_kwargs={
            "text_embeds": conditioning.tensors["pooled"],
            "time_ids": conditioning.scalars,
        },
        return_dict=False,
        **(control if controlled else {}),
    )
    asked = (lambda: residuals) if controlled else None
    for network in (unet, traced(unet)):
        found = network.predict(x, t, conditioning, control=asked)
        assert torch.equal(found, expected)


@torch.inference_mode()
def test_latents_that_cannot_be_halved_are_left_to_the_network(unet: SdxlUnet) -> None:
    x, t, conditioning = unet.example(2, 4, 4, 5)
    odd = x[..., :-1]
    assert odd.shape[-1] % unet.smallest
    assert torch.equal(
        traced(unet).predict(odd, t, conditioning), unet.predict(odd, t, conditioning)
    )


@torch.inference_mode()
def test_weights_that_are_changed_in_place_are_the_graph_s_as_well(unet: SdxlUnet) -> None:
    graph, example = traced(unet), unet.example(2, 4, 4, 5)
    before = graph.predict(*example)
    for weights in unet.module.parameters():
        weights.mul_(1.5)
    assert not torch.equal(graph.predict(*example), before)
    assert torch.equal(graph.predict(*example), unet.predict(*example))


class Counting(SdxlUnet):
    """Does what a graph cannot: it counts its images in Python."""

    def decode(self, embeds: torch.Tensor, *halfway: torch.Tensor) -> torch.Tensor:
        return super().decode(embeds, *halfway) * float(len(embeds))


class Unsteady(SdxlUnet):
    def decode(self, embeds: torch.Tensor, *halfway: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            raise RuntimeError("not while I am watched")
        return super().decode(embeds, *halfway)


@pytest.mark.parametrize(("kind", "reason"), [(Counting, "other answers"), (Unsteady, "watched")])
def test_a_network_that_no_graph_can_stand_for_is_run_itself(
    kind: type[SdxlUnet], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = kind(make_unet())
    with caplog.at_level(logging.WARNING):
        assert traced(network) is network
    assert reason in caplog.text


def test_where_the_interpreter_is_not_the_bottleneck_nothing_is_traced(unet: SdxlUnet) -> None:
    unet.module.to("meta")
    assert traced(unet) is unet
