"""Computing only masked tokens: the same answer as computing all, where the others are the
activation cache's."""

from collections.abc import Sequence

import pytest
import torch

from shared.models.contracts.network import Mode, Partial
from shared.models.families.flux.masked import MaskedCall
from shared.models.families.flux.transformer import FluxTransformer
from tests.families.test_flux_transformer import example
from tests.helpers.flux import make_transformer

MODES: list[tuple[Mode, ...]] = [
    ("keys_values",) * 4,
    ("outputs",) * 4,
    ("full",) * 4,
    ("full", "outputs", "keys_values", "full"),
    ("keys_values", "full", "outputs", "keys_values"),
]
PLACES = [torch.tensor([0, 5, 6, 23]), torch.tensor([11]), torch.arange(24)]


def network() -> FluxTransformer:
    torch.set_num_threads(1)
    return FluxTransformer(make_transformer(True))


def call(
    net: FluxTransformer, partials: Sequence[Partial], modes: Sequence[Mode] = ("full",) * 4
) -> torch.Tensor:
    x, t, told = example(True)
    few = len(partials)
    told = told.images(slice(few))
    return MaskedCall(net, x[:few], t[:few], told, partials, modes).run()


def recorded(net: FluxTransformer) -> list[dict[str, torch.Tensor]]:
    records: list[dict[str, torch.Tensor]] = [{}, {}, {}]
    call(net, [Partial(record=record) for record in records])
    return records


def tokens(places: torch.Tensor) -> torch.Tensor:
    """Latent positions (8, 12) of those tokens."""
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask.view(-1)[places] = True
    return mask.repeat_interleave(2, 0).repeat_interleave(2, 1)


@torch.inference_mode()
def test_with_nothing_masked_it_is_the_network() -> None:
    net = network()
    x, t, told = example(True)
    torch.testing.assert_close(call(net, [Partial()] * 3), net.predict(x, t, told))


@pytest.mark.parametrize("modes", MODES)
@torch.inference_mode()
def test_masked_tokens_come_out_as_if_all_had_been_computed(modes: tuple[Mode, ...]) -> None:
    net = network()
    x, t, told = example(True)
    expected, records = net.predict(x, t, told), recorded(net)
    partials = [Partial(p, r) for p, r in zip(PLACES, records, strict=True)]
    found = call(net, partials, modes)
    for i, places in enumerate(PLACES):
        # What is recorded is rounded to half precision.
        here = tokens(places)
        torch.testing.assert_close(found[i][:, here], expected[i][:, here], atol=1e-2, rtol=1e-2)
        assert not found[i][:, ~here].any()


@pytest.mark.parametrize("modes", MODES)
@torch.inference_mode()
def test_an_image_is_the_same_in_any_company(modes: tuple[Mode, ...]) -> None:
    net = network()
    first, _, _ = recorded(net)
    alone = call(net, [Partial(PLACES[0], first)], modes)
    among = call(net, [Partial(PLACES[0], first), Partial(), Partial()], modes)
    torch.testing.assert_close(among[:1], alone)
    x, t, told = example(True)
    torch.testing.assert_close(among[1:], net.predict(x, t, told)[1:])


@torch.inference_mode()
def test_what_is_recorded_beside_masked_images_is_what_is_recorded_alone() -> None:
    net = network()
    records = recorded(net)
    again: dict[str, torch.Tensor] = {}
    call(net, [Partial(PLACES[0], records[0]), Partial(record=again)], MODES[0])
    assert again.keys() == records[1].keys()
    for name, tensor in records[1].items():
        torch.testing.assert_close(again[name], tensor, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("modes", MODES)
@torch.inference_mode()
def test_what_was_recorded_of_some_masked_tokens_is_renewed(modes: tuple[Mode, ...]) -> None:
    """As it is recorded when all is computed; the rest stays as it was."""
    net, (places, _, _) = network(), PLACES
    expected, _, _ = recorded(net)
    before = {name: each.clone().index_fill_(0, places, 0.0) for name, each in expected.items()}
    after: dict[str, torch.Tensor] = {}
    renewed = places[1:]
    partial = Partial(places, before, after, ("key", "value"), renewed)
    call(net, [partial, Partial()], modes)
    assert after.keys() == {name for name in expected if not name.startswith("output")}
    for name, each in after.items():
        torch.testing.assert_close(each[renewed], expected[name][renewed], atol=2e-2, rtol=2e-2)
        kept = torch.ones(len(each), dtype=torch.bool).index_fill_(0, renewed, False)
        assert torch.equal(each[kept], before[name][kept])


@torch.inference_mode()
def test_masked_tokens_see_each_other_and_the_cache() -> None:
    """Another activation cache elsewhere changes the answer, so does another latent within the
    mask; one outside it, of which the cache knows nothing, does not."""
    net, places = network(), PLACES[0]
    first, second, _ = recorded(net)
    x, t, told = example(True)

    def answer(x: torch.Tensor, record: dict[str, torch.Tensor]) -> torch.Tensor:
        one = told.images(slice(1))
        return MaskedCall(net, x[:1], t[:1], one, [Partial(places, record)], MODES[0]).run()

    plain = answer(x, first)
    assert (answer(x, second) - plain).abs().max() > 1e-3
    inside, outside = (torch.where(tokens(places) == w, x + 1, x) for w in (True, False))
    assert (answer(inside, first) - plain).abs().max() > 1e-3
    assert torch.equal(answer(outside, first), plain)


def test_a_token_is_masked_if_any_of_its_latent_positions_is() -> None:
    mask = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
    mask[0, 0, 3, 5] = mask[0, 0, 2, 4] = mask[0, 0, 7, 11] = True
    assert network().partial_tokens(mask).tolist() == [8, 23]
