"""Pictures of a FLUX model, encoded, denoised in mixed batches and decoded: `FluxPipeline`'s."""

import pytest
import torch

from shared.models.samplers.samplers import samplers_for
from tests.conftest import HANG_SECONDS, run
from tests.helpers.flux import DYNAMIC, Atelier, Wish, apart, make_flux
from tests.services.denoiser.test_cfg_parallel import pair

WISHES = (
    Wish(),
    Wish("a blue ball", seed=3, steps=7, guidance=4.0, negative="a blur"),
    Wish("a tree", seed=5, steps=3, guidance=2.5, size=(32, 96)),
    Wish("a house", seed=2, steps=5, guidance=6.0),
    Wish("", seed=9, steps=1),
)


@pytest.fixture(scope="module", params=["distilled", "dynamic", "plain"])
def atelier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Atelier:
    folder = tmp_path_factory.mktemp("flux") / "toy"
    scheduler = {} if request.param == "plain" else DYNAMIC
    return Atelier(make_flux(folder, request.param == "distilled", **scheduler))


def test_rows_of_all_kinds_share_steps_and_are_as_diffusers_paints_them(atelier: Atelier) -> None:
    together = atelier.paint([atelier.row(wish) for wish in WISHES])
    for wish, picture in zip(WISHES, together, strict=True):
        assert apart(picture, atelier.expected(wish)) <= 1, wish
        (alone,) = atelier.paint([atelier.row(wish)])
        assert apart(picture, alone) <= 1, wish


def test_guidance_and_prompt_show_in_the_picture(atelier: Atelier) -> None:
    plain, guided, other = atelier.paint(
        [atelier.row(wish) for wish in (Wish(), Wish(guidance=8.0), Wish("quite another"))]
    )
    assert apart(plain, guided) > 2
    assert apart(plain, other) > 2


@pytest.mark.parametrize("steps", [2, 4])
def test_every_sampler_is_exact(atelier: Atelier, steps: int) -> None:
    samplers = samplers_for(atelier.sampling.scheduler_config)
    assert samplers[0] == "flow_euler"
    wishes = [Wish(sampler=sampler, steps=steps, guidance=3.0) for sampler in samplers]
    pictures = atelier.paint([atelier.row(wish) for wish in wishes])
    for wish, picture in zip(wishes, pictures, strict=True):
        assert apart(picture, atelier.expected(wish)) <= 1, wish


def test_a_row_goes_on_from_its_checkpoint(atelier: Atelier) -> None:
    wish = Wish(steps=5, guidance=3.0)
    kept = {}
    (whole,) = atelier.paint(
        [atelier.row(wish)], lambda step, tensors: kept.update({step: tensors})
    )
    (resumed,) = atelier.paint([atelier.row(wish).resume(3, kept[3])])
    assert apart(whole, resumed) == 0


def test_a_row_that_is_alone_shares_its_guidance(
    atelier: Atelier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.denoiser.cfg_parallel.split.LEAST_WAIT", HANG_SECONDS)
    wish = Wish(steps=6, guidance=3.0)

    async def main() -> tuple[torch.Tensor, int]:
        async with pair(asking=atelier.network, helping=Atelier(atelier.source).network) as p:
            row = atelier.row(wish)
            halves = [half for half in (row.uncond, row.cond) if half is not None]
            row.texts = tuple(
                {name: p._put(tensor[0]) for name, tensor in half.tensors.items()}
                for half in halves
            )
            return await p.one.run(row), p.assistant.halves.total()

    latents, halves = run(main())
    (picture,) = atelier.decoder.decode([latents[0]])
    assert apart(picture, atelier.expected(wish)) <= 1
    assert (halves > 0) != atelier.family.embedded_guidance
