"""Edits of a FLUX model: what `FluxImg2ImgPipeline` and `FluxInpaintPipeline` make of an image."""

from typing import Any

import msgspec
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline
from PIL import Image as Pil

from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from services.vae.source_image import read_source_image
from shared.jobs.edits import taken
from shared.jobs.graph import image_parameters
from shared.messages import EditSpec
from tests.helpers import factories, pictures
from tests.helpers.flux import DYNAMIC, Atelier, Wish, apart, make_flux

SIZE = (64, 64)
BOX = (16, 8, 48, 40)
PICTURE, MASK = pictures.picture(SIZE), pictures.mask(SIZE, BOX)
HOLES = Pil.new("L", SIZE, 0)
HOLES.paste(255, BOX)
STEPS = 6


@pytest.fixture(scope="module", params=["distilled", "dynamic", "plain"])
def atelier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Atelier:
    folder = tmp_path_factory.mktemp("flux") / "toy"
    scheduler = {} if request.param == "plain" else DYNAMIC
    return Atelier(make_flux(folder, request.param == "distilled", **scheduler))


def edited(atelier: Atelier, wish: Wish, masked: bool, strength: float) -> Row:
    """As the vae service and the denoiser make it of the files."""
    edit = EditSpec(strength=strength, mask="file" if masked else "none", mask_mode="exact")
    spec = msgspec.structs.replace(factories.spec(width=SIZE[0], height=SIZE[1]), edit=edit)
    source = read_source_image(
        image_parameters(spec), pictures.file(PICTURE), pictures.file(MASK) if masked else None
    )
    [posterior] = atelier.decoder.encode([source.pixels])
    mask = source.latent_mask(8)
    image = SourceImage(
        posterior.mean[None],
        posterior.std[None],
        None if mask is None else mask[None],
        pure=masked and strength == 1.0,
    )
    start = wish.steps - taken(wish.steps, strength, rounds_up=atelier.family.rounds_up)
    table = atelier.sampling.table(wish.sampler, wish.steps, *wish.size, start)
    return atelier.row(wish, image=image, table=table)


def expected(atelier: Atelier, wish: Wish, masked: bool, strength: float) -> torch.Tensor:
    """What diffusers paints."""
    kind = FluxInpaintPipeline if masked else FluxImg2ImgPipeline
    pipe: Any = kind(**atelier.pipeline.components)
    pipe.set_progress_bar_config(disable=True)
    masks = {"mask_image": HOLES} if masked else {}
    return atelier.painted(pipe, wish, image=PICTURE, strength=strength, **masks)


def test_an_edit_is_diffusers_edit_in_any_company(atelier: Atelier) -> None:
    wishes = [
        (Wish(seed=seed, steps=STEPS, guidance=guidance, negative="a blur"), masked, strength)
        for seed, guidance in ((3, 1.0), (4, 3.0))
        for masked in (False, True)
        for strength in (0.4, 0.7, 1.0)
    ]
    rows = [edited(atelier, *wish) for wish in wishes]
    *found, plain = atelier.paint([*rows, atelier.row(Wish(seed=9))])
    assert apart(plain, atelier.expected(Wish(seed=9))) <= 1
    for picture, wish in zip(found, wishes, strict=True):
        assert apart(picture, expected(atelier, *wish)) <= 1, wish
