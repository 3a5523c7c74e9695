"""Stable Diffusion 1.x and 2.x, encoded, denoised in mixed batches and decoded: diffusers'
pictures."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models.controlnets.controlnet import ControlNetModel
from safetensors.torch import load_file, save_file

from services.controlnet.steps import MAX_IMAGES
from services.denoiser.controlnet.exchange import ResidualExchange
from services.denoiser.controlnet.state import ControlState, ControlUse
from services.denoiser.engine.engine import Engine
from services.denoiser.rows.row import Row
from shared.bus.memory import MemoryBroker
from shared.errors import Misconfigured
from shared.models.cards import read_card
from shared.models.catalogue import Catalogue
from shared.models.contracts.controlnet import ControlNet
from shared.models.families.registry import control_family
from shared.models.families.sd.family import Sd
from shared.models.families.unet.lora_names import sgm_names
from shared.models.families.unet.traced import TracedUnet
from shared.models.families.unet.unet import Unet
from shared.models.loras.read import read_adapter
from shared.models.lowrank.weights import Adapter
from shared.models.samplers.samplers import samplers_for
from shared.shipped import DEFAULT_CONTROLS
from tests.conftest import HANG_SECONDS, run
from tests.families.test_flux_edits import HOLES, PICTURE, edited
from tests.helpers.controls import Studio
from tests.helpers.flux import Wish, apart
from tests.helpers.loras import shapes_of, write_lora
from tests.helpers.models import SDXL
from tests.helpers.sd import BETAS, VERSIONS, SdAtelier, make_sd, make_sd_control, make_sd_unet
from tests.services.denoiser.test_cfg_parallel import pair

WISHES = (
    Wish(sampler="euler"),
    Wish("a blue ball", seed=3, steps=7, guidance=4.0, negative="a blur", sampler="ddim"),
    Wish("a tree", seed=5, steps=3, guidance=2.5, size=(32, 96), sampler="dpmpp_2m_karras"),
    Wish("a house", seed=2, steps=5, guidance=6.0, sampler="euler_ancestral"),
    Wish("", seed=9, steps=2, guidance=2.0, sampler="heun"),
)


@pytest.fixture(scope="module", params=VERSIONS)
def atelier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SdAtelier:
    return SdAtelier(make_sd(tmp_path_factory.mktemp("sd") / "toy", request.param))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> SdAtelier:
    return SdAtelier(make_sd(tmp_path_factory.mktemp("sd") / "first"))


def test_its_graph_gives_the_same_bits(first: SdAtelier) -> None:
    graph = first.family.network("cpu", torch.float32)
    assert isinstance(graph, TracedUnet)
    assert isinstance(first.network, Unet)
    example = first.network.example(3, 2, 3, 9)
    assert torch.equal(graph.predict(*example), first.network.predict(*example))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> SdAtelier:
    return SdAtelier(make_sd(tmp_path_factory.mktemp("sd") / "second", "2-v"))


def test_rows_of_all_kinds_share_steps_and_are_as_diffusers_paints_them(
    atelier: SdAtelier,
) -> None:
    together = atelier.paint([atelier.row(wish) for wish in WISHES])
    for wish, picture in zip(WISHES, together, strict=True):
        assert apart(picture, atelier.expected(wish)) <= 1, wish
    plain, guided, other = atelier.paint(
        [
            atelier.row(Wish(sampler="euler", guidance=guidance, prompt=prompt))
            for guidance, prompt in ((2.0, "a"), (9.0, "a"), (2.0, "quite another"))
        ]
    )
    assert apart(plain, guided) > 1
    assert apart(plain, other) > 1


def test_every_sampler_is_exact(second: SdAtelier) -> None:
    atelier, samplers = second, samplers_for(second.sampling.scheduler_config)
    wishes = [Wish(sampler=sampler, steps=3, guidance=3.0) for sampler in samplers]
    pictures = atelier.paint([atelier.row(wish) for wish in wishes])
    for wish, picture in zip(wishes, pictures, strict=True):
        assert apart(picture, atelier.expected(wish)) <= 1, wish


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
@pytest.mark.parametrize(
    "settings", [{}, {"timestep_spacing": "leading", "steps_offset": 0, "clip_sample": True}]
)
def test_its_own_scheduler_is_corrected_as_the_pipeline_does_it(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Old files have no `steps_offset`, and would clip: the pipeline overrules both."""
    atelier = SdAtelier(make_sd(tmp_path / "toy"))
    file = tmp_path / "toy" / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    for name in ("steps_offset", "clip_sample", "timestep_spacing"):
        del config[name]
    file.write_text(json.dumps(config | settings))
    atelier = SdAtelier(atelier.source)
    wish = Wish(sampler=read_card(atelier.source).default_sampler, steps=7, guidance=3.0)
    assert wish.sampler == "ddim"
    [picture] = atelier.paint([atelier.row(wish)])
    assert apart(picture, atelier.painted(atelier.pipeline, wish, own=True)) <= 1


def test_the_scheduler_of_most_of_them_is_refused_until_an_operator_chooses_another(
    tmp_path: Path,
) -> None:
    """PNDM steps by four former answers; its config says of the noise what the others say."""
    source = make_sd(tmp_path / "toy")
    file = Path(source, "scheduler", "scheduler_config.json")
    config: dict[str, Any] = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, **BETAS}
    file.write_text(json.dumps(config))
    index = Path(source, "model_index.json")
    named = json.loads(index.read_text()) | {"scheduler": ["diffusers", "PNDMScheduler"]}
    index.write_text(json.dumps(named))
    with pytest.raises(Misconfigured, match=r"is a PNDMScheduler; served are.*may be chosen"):
        read_card(source)
    Path(source, "darkroom.json").write_text(json.dumps({"sampler": "dpmpp_2m"}))
    atelier, wish = SdAtelier(source), Wish(steps=6, guidance=3.0, sampler="dpmpp_2m")
    assert read_card(source).default_sampler == "dpmpp_2m"
    [picture] = atelier.paint([atelier.row(wish)])
    atelier.pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        atelier.pipeline.scheduler.config
    )
    assert apart(picture, atelier.painted(atelier.pipeline, wish, own=True)) <= 1


def test_a_row_goes_on_from_its_checkpoint(atelier: SdAtelier) -> None:
    wish = Wish(steps=5, guidance=3.0, sampler="dpmpp_2m")
    kept: dict[int, dict[str, torch.Tensor]] = {}
    (whole,) = atelier.paint(
        [atelier.row(wish)], lambda step, tensors: kept.update({step: tensors})
    )
    (resumed,) = atelier.paint([atelier.row(wish).resume(3, kept[3])])
    assert apart(whole, resumed) == 0


def test_an_edit_is_diffusers_edit_in_any_company(second: SdAtelier) -> None:
    atelier = second
    wishes = [
        (Wish(seed=seed, steps=6, guidance=guidance, sampler="euler"), masked, strength)
        for seed, guidance, strength in ((3, 1.0, 0.4), (4, 3.0, 0.7), (5, 2.0, 1.0))
        for masked in (False, True)
    ]
    *found, plain = atelier.paint(
        [*(edited(atelier, *wish) for wish in wishes), atelier.row(WISHES[0])]
    )
    assert apart(plain, atelier.expected(WISHES[0])) <= 1
    for picture, (wish, masked, strength) in zip(found, wishes, strict=True):
        kind = StableDiffusionInpaintPipeline if masked else StableDiffusionImg2ImgPipeline
        parts = atelier.pipeline.components
        pipe: Any = kind(**parts, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        told = {"mask_image": HOLES, "width": 64, "height": 64} if masked else {}
        expected = atelier.painted(pipe, wish, image=PICTURE, strength=strength, **told)
        assert apart(picture, expected) <= 1, (wish, masked, strength)


def test_a_row_that_is_alone_shares_its_guidance(
    first: SdAtelier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.denoiser.cfg_parallel.split.LEAST_WAIT", HANG_SECONDS)
    wish = Wish(steps=6, guidance=3.0, sampler="euler")

    async def main() -> tuple[torch.Tensor, int]:
        others = SdAtelier(first.source)
        names = first.family.conditioning
        async with pair(names, asking=first.network, helping=others.network) as p:
            row = told_by_handles(first, p, wish)
            return await p.one.run(row), p.assistant.halves.total()

    latents, halves = run(main())
    (picture,) = first.decoder.decode([latents[0]])
    assert apart(picture, first.expected(wish)) <= 1
    assert halves > 0


def told_by_handles(atelier: SdAtelier, place: Any, wish: Wish, **fields: Any) -> Row:
    row = atelier.row(wish, **fields)
    put = getattr(place, "put", None) or place._put
    row.texts = tuple(
        {name: put(tensor[0]) for name, tensor in half.tensors.items()}
        for half in (row.uncond, row.cond)
        if half is not None
    )
    return row


def test_controlnets_steer_as_in_diffusers_pipeline(second: SdAtelier, tmp_path: Path) -> None:
    atelier, source = second, make_sd_control(tmp_path / "edges", "2-v")
    config = json.loads(Path(source, "config.json").read_text())
    network = control_family(source, config).control_network(source, "cpu", torch.float32)
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wishes: list[tuple[Wish, dict[str, Any]]] = [
        (Wish(seed=4, steps=5, guidance=3.0, sampler="euler"), {"scale": 0.8, "end": 0.7}),
        (Wish(seed=5, steps=4, guidance=1.0, sampler="ddim"), {"scale": 1.0, "start": 0.3}),
        (Wish(seed=6, steps=4, guidance=4.0, sampler="euler"), {"guess_mode": True}),
    ]
    found = run(with_residuals(atelier, network, hint, wishes))
    pipe: Any = StableDiffusionControlNetPipeline(
        **atelier.pipeline.components,
        controlnet=ControlNetModel.from_pretrained(source),
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    for picture, (wish, steer) in zip(found, wishes, strict=True):
        told: dict[str, Any] = {
            "controlnet_conditioning_scale": float(steer.get("scale", 1.0)),
            "control_guidance_start": steer.get("start", 0.0),
            "control_guidance_end": steer.get("end", 1.0),
            "guess_mode": steer.get("guess_mode", False),
        }
        expected = atelier.painted(pipe, wish, image=hint, width=64, height=64, **told)
        assert apart(picture, expected) <= 1, wish
        assert apart(picture, atelier.expected(wish)) > 2, wish


async def with_residuals(
    atelier: SdAtelier,
    network: ControlNet,
    hint: torch.Tensor,
    wishes: list[tuple[Wish, dict[str, Any]]],
) -> list[torch.Tensor]:
    """All rows at once."""
    assert len(wishes) < MAX_IMAGES
    studio = Studio(MemoryBroker(), seconds=20.0)
    service = await studio.start(("edges",), lambda _: network)
    try:
        async with Engine(atelier.network, predictors=[ResidualExchange(studio.ask)]) as engine:
            rows = [
                told_by_handles(
                    atelier,
                    studio,
                    wish,
                    extensions=(
                        ControlState(
                            (ControlUse("edges", studio.put(network.embed(hint)[0]), **steer),)
                        ),
                    ),
                )
                for wish, steer in wishes
            ]
            latents = await asyncio.gather(*map(engine.run, rows))
    finally:
        await studio.stop()
        service.close()
    return atelier.decoder.decode([one[0] for one in latents])


@pytest.fixture(scope="module")
def loras(first: SdAtelier, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`words` is for the text encoder alone, the others for the UNet."""
    folder = tmp_path_factory.mktemp("loras")
    unet = {"unet": first.pipeline.unet}
    encoder = {"text_encoder": first.pipeline.text_encoder}
    words = write_lora(folder / "words.safetensors", encoder, "kohya", seed=3, alpha=2.0)
    # Trainers give the only text encoder no number.
    named = {key.replace("lora_te1_", "lora_te_"): one for key, one in load_file(words).items()}
    assert all(key.startswith("lora_te_") for key in named)
    save_file(named, words)
    return {
        "words": words,
        "older": write_lora(folder / "older.safetensors", unet, "diffusers", seed=2),
        "kohya": write_lora(folder / "kohya.safetensors", unet, "kohya", seed=1, alpha=1.0),
    }


@torch.no_grad()
def merged(encoder: Any, file: Path, scale: float) -> None:
    """Add to the encoder's weights what `words` says, as its trainer would."""
    tensors = load_file(file)
    for name, layer in encoder.named_modules():
        place = f"text_model.{name.removeprefix('text_model.')}".replace(".", "_")
        if (down := tensors.get(f"lora_te_{place}.lora_down.weight")) is not None:
            up, alpha = (tensors[f"lora_te_{place}.{one}"] for one in ("lora_up.weight", "alpha"))
            layer.weight += scale * float(alpha) / len(down) * up @ down


def adapters(atelier: SdAtelier, files: dict[str, Path]) -> dict[str, Adapter]:
    found = {name: read_adapter(name, path, atelier.family) for name, path in files.items()}
    for one in found.values():
        atelier.network.check(one)
        atelier.encoder.check(one)
    return found


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_rows_with_different_loras_share_steps_and_are_as_diffusers_paints_them(
    first: SdAtelier, loras: dict[str, Path]
) -> None:
    wishes: list[tuple[Wish, dict[str, float]]] = [
        (Wish(seed=1, guidance=3.0, sampler="euler"), {"kohya": 0.8}),
        (Wish(seed=2, steps=5, sampler="ddim"), {"kohya": 1.0, "older": 0.5}),
        (Wish(seed=3, sampler="euler"), {}),
        (Wish(seed=4, guidance=4.0, sampler="euler"), {"words": 2.0}),
    ]
    found = adapters(first, loras)
    rows = [
        first.row(wish, tuple((found[name], scale) for name, scale in wanted.items()))
        for wish, wanted in wishes
    ]
    pictures, plain = first.paint(rows), first.paint([first.row(wish) for wish, _ in wishes])
    painter = SdAtelier(first.source)
    for name in ("older", "kohya"):
        path = loras[name]
        painter.pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    for (wish, wanted), picture, without in zip(wishes, pictures, plain, strict=True):
        if words := wanted.pop("words", 0.0):
            merged(painter.pipeline.text_encoder, loras["words"], words)
        if wanted:
            painter.pipeline.enable_lora()
            painter.pipeline.set_adapters(list(wanted), list(wanted.values()))
        else:
            painter.pipeline.disable_lora()
        assert apart(picture, painter.expected(wish)) <= 1, wish
        assert (apart(picture, without) > 1) == bool(wanted or words), wish


def test_at_its_full_size_its_layers_have_the_names_that_diffusers_converts() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    shapes = shapes_of(unet)
    theirs = {
        name: pieces[0].layer
        for name, pieces in sgm_names(shapes).items()
        if re.match(r"(time_embed|input_blocks|middle_block|output_blocks|out)\.", name)
        and len(pieces) == 1
        and not name.endswith(".to_out")  # an attention processor's name
    }
    numbers = {name: torch.tensor(float(k)) for k, name in enumerate((*theirs, "out.0"))}
    weights = {
        f"model.diffusion_model.{name}.{kind}": number
        for name, number in numbers.items()
        for kind in ("weight", "bias")
    }
    converted = convert_ldm_unet_checkpoint(weights, dict(unet.config))
    found = {key.removesuffix(".weight"): number for key, number in converted.items()}
    assert {name: found[layer] for name, layer in theirs.items()} == {
        name: numbers[name] for name in theirs
    }
    assert set(theirs.values()) == set(shapes)


def test_encoders_may_be_told_to_leave_padding_out(tmp_path: Path) -> None:
    source = make_sd(tmp_path / "toy")
    file = Path(source, "text_encoder", "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_attention_mask": True}))
    atelier, wish = SdAtelier(source), Wish(sampler="ddim", guidance=2.0)
    [picture] = atelier.paint([atelier.row(wish)])
    assert apart(picture, atelier.expected(wish)) <= 1


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unet", {"in_channels": 9}, "in_channels is 9 and out_channels 4"),
    ("unet", {"addition_embed_type": "text"}, 'addition_embed_type is "text"; honoured is null'),
    ("unet", {"time_cond_proj_dim": 3}, "time_cond_proj_dim is 3; honoured is null"),
    ("unet", {"class_embed_type": "projection"}, "class_embed_type"),
    ("unet", {"cross_attention_dim": 768}, "is 768, but the text encoder gives 24"),
    (
        "vae",
        {"shift_factor": 0.1},
        "shift_factor is 0.1; honoured is null, for",
    ),
    ("vae", {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}, "latents_mean is [0.0,"),
    ("vae", {"latent_channels": 16}, "latent_channels of the autoencoder is 16"),
]


@pytest.mark.parametrize(("folder", "fields", "reason"), REFUSED, ids=lambda one: str(one)[:40])
def test_what_its_pipeline_would_not_draw_is_refused_by_name(
    first: SdAtelier, tmp_path: Path, folder: str, fields: dict[str, Any], reason: str
) -> None:
    model = tmp_path / "toy"
    model.mkdir()
    for part in Path(first.source).iterdir():
        if part.name != folder:
            (model / part.name).symlink_to(part)
    (model / folder).mkdir()
    for part in Path(first.source, folder).iterdir():
        (model / folder / part.name).symlink_to(part)
    config = model / folder / "config.json"
    found = json.loads(config.read_text())
    config.unlink()
    config.write_text(json.dumps(found | fields))
    with pytest.raises(Misconfigured, match="cannot be served") as refusal:
        read_card(str(model))
    assert reason in refusal.value.message


def test_its_card_says_what_its_pipeline_does_by_default(first: SdAtelier) -> None:
    card = read_card(first.source)
    assert (card.pipeline, card.default_guidance) == ("StableDiffusionPipeline", 7.5)
    assert (card.default_width, card.size_multiple, card.scale) == (64, 8, 8)
    assert (card.masks, card.embedded_guidance, card.rounds_up) == (False, False, False)


def test_a_distilled_one_is_drawn_as_its_makers_want_it(tmp_path: Path) -> None:
    plain = read_card(make_sd(tmp_path / "plain"))
    turbo = read_card(make_sd(tmp_path / "sd-turbo", "2", timestep_spacing="trailing"))
    assert (plain.default_steps, plain.default_guidance) == (30, 7.5)
    assert (turbo.default_steps, turbo.default_guidance) == (1, 0.0)


@pytest.mark.parametrize(("width", "version"), [(768, 1), (1024, 2)])
def test_versions_are_told_apart_by_what_their_network_is_told(width: int, version: int) -> None:
    family = Sd("", make_sd_unet().config | {"cross_attention_dim": width})
    assert family.architecture == f"Stable Diffusion {version}"


def test_controlnets_fit_models_of_their_own_family_only(first: SdAtelier, tmp_path: Path) -> None:
    make_sd_control(tmp_path / "lines")
    catalogue = Catalogue.load(
        [first.source, SDXL], controls=[str(tmp_path / "lines"), DEFAULT_CONTROLS]
    )
    assert not catalogue.unusable
    [own, other] = catalogue.cards
    assert list(catalogue.controls_for(own)) == ["lines"]
    assert "lines" not in catalogue.controls_for(other)
    assert "edges" in catalogue.controls_for(other)


def test_a_lora_for_another_version_is_refused_by_name(
    first: SdAtelier, loras: dict[str, Path], tmp_path: Path
) -> None:
    wide = {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": 1024}
    tensors: dict[str, torch.Tensor] = {}
    for base, width in wide.items():
        tensors[f"{base}.lora_down.weight"] = torch.zeros(2, width)
        tensors[f"{base}.lora_up.weight"] = torch.zeros(8, 2)
    save_file(tensors, tmp_path / "two.safetensors")
    with pytest.raises(Exception, match=r"LoRA for Stable Diffusion 2, and this model is"):
        read_adapter("two", tmp_path / "two.safetensors", first.family)
