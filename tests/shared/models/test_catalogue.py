"""What a model's files ask for is honoured, or the model is refused by name. The others are
served."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest

from shared.errors import InvalidRequest, Misconfigured
from shared.jobs.validate import validate
from shared.messages import GenerationRequest
from shared.models.cards import read_card
from shared.models.catalogue import Catalogue, sort_controls
from shared.models.contracts.autoencoder import VideoAutoencoder
from shared.models.contracts.options import Options
from shared.models.families.registry import FAMILIES
from shared.models.samplers.samplers import SAMPLERS
from shared.models.samplers.schedulers import SCHEDULERS
from shared.models.settings import ModelSettings
from shared.shipped import DEFAULT_CONTROLS, MODELS
from tests.helpers.models import FLUX, SDXL, copied, rescheduled
from tests.shared.models.test_schedulers import EULER, FLOW, SD

UNHONOURED: list[tuple[str, str, dict[str, Any], str]] = [
    (SDXL, "unet", {"in_channels": 8}, "in_channels is 8 and out_channels 4"),
    (SDXL, "unet", {"in_channels": 9}, "in_channels is 9 and out_channels 4"),
    (
        SDXL,
        "unet",
        {"in_channels": 8, "out_channels": 8},
        "latent_channels of the autoencoder is 4",
    ),
    (SDXL, "unet", {"class_embed_type": "timestep"}, 'class_embed_type is "timestep"'),
    (SDXL, "unet", {"dual_cross_attention": True}, "dual_cross_attention is true; honoured is"),
    (SDXL, "unet", {"num_attention_heads": 8}, "num_attention_heads is 8; honoured is null"),
    (SDXL, "unet", {"num_class_embeds": 10}, "num_class_embeds is 10; honoured is null"),
    (SDXL, "unet", {"time_cond_proj_dim": 3}, "time_cond_proj_dim is 3; honoured is null"),
    (SDXL, "unet", {"time_cond_proj_dim": "256"}, 'time_cond_proj_dim is "256"; honoured is'),
    (SDXL, "unet", {"mid_block_type": None}, "mid_block_type is null"),
    (SDXL, "unet", {"addition_embed_type": None}, "addition_embed_type is null"),
    (SDXL, "unet", {"addition_embed_type": "image"}, 'addition_embed_type is "image"'),
    (SDXL, "unet", {"encoder_hid_dim_type": "ip_image_proj"}, "encoder_hid_dim_type"),
    (SDXL, "unet", {"attention_type": "gated"}, 'attention_type is "gated"'),
    (SDXL, "unet", {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}, "down_block_types"),
    (SDXL, "unet", {"cross_attention_dim": 768}, "cross_attention_dim of the network is 768"),
    (SDXL, "unet", {"cross_attention_dim": [224, 224, 224]}, "cross_attention_dim is [224"),
    (SDXL, "unet", {"sample_size": [16, 24]}, "sample_size is [16, 24]"),
    (SDXL, "unet", {"projection_class_embeddings_input_dim": 288}, "pooled prompt and six sizes"),
    (SDXL, "unet", {"_class_name": "UNetMotionModel"}, "unet/ is a UNetMotionModel"),
    (SDXL, "vae", {"latent_channels": 16}, "latent_channels of the autoencoder is 16"),
    (SDXL, "vae", {"in_channels": 4}, "vae/config.json: in_channels is 4; honoured is 3"),
    (SDXL, "vae", {"latents_mean": [0.0], "latents_std": [1.0]}, "latents_mean is 1"),
    (SDXL, "vae", {"latents_mean": [0.0] * 4}, "latents_mean and latents_std, or neither"),
    (SDXL, "vae", {"shift_factor": 0.1}, "shift_factor is 0.1; honoured is null, for diffusers'"),
    (SDXL, "vae", {"scaling_factor": 0}, "scaling_factor is 0"),
    (SDXL, "vae", {"scaling_factor": "1"}, 'scaling_factor is "1"; honoured is a number'),
    (FLUX, "vae", {"shift_factor": None}, "shift_factor is null; honoured is a number"),
    (
        FLUX,
        "vae",
        {"latents_mean": [0.5] * 4, "latents_std": [1.0] * 4},
        "latents_mean is [0.5, 0.5, 0.5, 0.5]; honoured is null",
    ),
    (SDXL, "vae", {"_class_name": "AutoencoderTiny"}, "vae/ is a AutoencoderTiny"),
    (FLUX, "transformer", {"in_channels": 96, "out_channels": 16}, "in_channels is 96"),
    (FLUX, "transformer", {"in_channels": 64}, "autoencoder is 4"),
    (FLUX, "transformer", {"patch_size": 2}, "patch_size is 2; honoured is 1"),
    (FLUX, "transformer", {"joint_attention_dim": 4096}, "joint_attention_dim of the network"),
    (FLUX, "transformer", {"pooled_projection_dim": 768}, "pooled_projection_dim of the network"),
]
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"step": 4}, "unknown field `step`; settings are: name, steps"),
    ({"steps": 0}, "$.steps"),
    ({"steps": "4"}, "$.steps"),
    ({"guidance": -1}, "$.guidance"),
    ({"sampler": "magic"}, "sampler is 'magic'; allowed: euler"),
    ({"sampler": "flow_euler"}, "sampler is 'flow_euler'; allowed: euler"),
    ({"width": 130}, "width is 130; allowed: a multiple of 8 up to 128"),
    ({"height": 512}, "height is 512; allowed: a multiple of 8 up to 128"),
    ({"name": "two words"}, "must be printable, without spaces"),
    ({"name": ""}, "must be printable, without spaces"),
    ({"max_width": 4}, "max_width is too small; allowed: from 8"),
]


OPTIONS = [
    VideoAutoencoder.options,
    *(
        options
        for family in FAMILIES
        for options in (family.options, family.control_options, family.autoencoder.options)
        if options is not None
    ),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda one: one.kind)
def test_every_option_that_diffusers_knows_is_in_one_of_the_lists(options: Options) -> None:
    known = inspect.signature(getattr(diffusers, options.kind).__init__).parameters
    assert not options.read & set(options.fixed)
    assert options.read | set(options.fixed) == set(known) - {"self"}
    for name, allowed in options.fixed.items():
        default = known[name].default
        parts = default if isinstance(default, tuple) else [default]
        assert name in options.needed or set(parts) <= set(allowed), name


def test_the_lists_are_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    fixed = {name for kind in SCHEDULERS.values() for name in kind.fixed}
    served = (options for options in OPTIONS if options is not VideoAutoencoder.options)
    fixed |= {name for one in served for name in one.fixed}
    for name in (*SCHEDULERS, *fixed, *ModelSettings.__struct_fields__):
        assert f"`{name}`" in page, name
    for name in SAMPLERS:
        stem = re.sub("_(karras|exponential|beta|lu)$", "", name)
        assert f"`{name}`" in page or f"`{stem}`, and with" in page, name


@pytest.mark.parametrize(
    ("source", "folder", "fields", "reason"), UNHONOURED, ids=lambda value: str(value)[-50:]
)
def test_a_network_that_is_not_honoured_is_refused_by_name(
    tmp_path: Path, source: str, folder: str, fields: dict[str, Any], reason: str
) -> None:
    model = copied(tmp_path / "m", {f"{folder}/config.json": fields}, source)
    with pytest.raises(Misconfigured, match="cannot be served") as refusal:
        read_card(model)
    assert reason in refusal.value.message


@pytest.mark.parametrize("component", ["vae", "unet", "text_encoder", "text_encoder_2"])
def test_a_component_of_another_class_is_refused_by_name(tmp_path: Path, component: str) -> None:
    index = {component: ["diffusers", "Other"]}
    with pytest.raises(Misconfigured, match=f"{component} is a Other; served is"):
        read_card(copied(tmp_path / "m", {"model_index.json": index}))


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    index = {"unet": ["my_module", "UNet2DConditionModel"]}
    with pytest.raises(Misconfigured, match="unet is a UNet2DConditionModel of 'my_module'"):
        read_card(copied(tmp_path / "m", {"model_index.json": index}))


@pytest.mark.parametrize("source", [SDXL, FLUX])
def test_tokenizers_that_lack_their_files_are_named(tmp_path: Path, source: str) -> None:
    """transformers makes one of them that knows no words, or not how to take them apart."""
    for number, (folder, gone, needed) in enumerate(
        [
            ("tokenizer", "*", "tokenizer.json or merges.txt and vocab.json"),
            ("tokenizer", "[tm]*.*", "tokenizer.json or merges.txt and vocab.json"),
            ("tokenizer_2", "*", "tokenizer.json or "),
        ]
    ):
        model = copied(tmp_path / str(number), source=source)
        for path in (tmp_path / str(number) / folder).glob(gone):
            path.unlink()
        with pytest.raises(Misconfigured, match=f"has no {needed}.* in {folder}/"):
            read_card(model)


def test_quantized_components_are_refused_by_name(tmp_path: Path) -> None:
    for component in ("unet", "text_encoder_2"):
        fields = {f"{component}/config.json": {"quantization_config": {"load_in_4bit": True}}}
        with pytest.raises(Misconfigured, match=f"{component}/config.json .* quantization_config"):
            read_card(copied(tmp_path / component, fields))


@pytest.mark.parametrize(("settings", "reason"), SETTINGS, ids=str)
def test_settings_of_a_model_that_cannot_be_followed_are_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read_card(copied(tmp_path / "m", {"darkroom.json": settings}))
    assert reason in refusal.value.message


@pytest.mark.parametrize("source", MODELS.values(), ids=MODELS)
def test_models_that_ship_can_be_drawn_by_a_request_that_says_nothing(source: str) -> None:
    catalogue = Catalogue.load([source])
    assert not catalogue.unusable
    validate(GenerationRequest(job_id="a" * 32, prompt="x"), catalogue)


TURBO = SD | {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "timestep_spacing": "trailing",
}
MAKERS: list[tuple[str, dict[str, Any], tuple[int, float]]] = [
    ("sdxl-turbo", TURBO, (1, 0.0)),
    ("dreamshaper-xl-turbo", SD | {"_class_name": "DPMSolverMultistepScheduler"}, (6, 2.0)),
    ("RealVisXL_V5.0_Lightning", EULER, (4, 0.0)),
    ("sdxl_lightning_8step", EULER, (8, 0.0)),
    ("Hyper-SDXL-1step", EULER, (1, 0.0)),
    ("hyperrealism", EULER, (30, 5.0)),
    ("unnamed", EULER | {"timestep_spacing": "trailing"}, (4, 0.0)),
    ("lcm-sdxl", EULER, (4, 1.0)),
    ("plain", SD | {"_class_name": "LCMScheduler"}, (4, 1.0)),
    ("plain", EULER, (30, 5.0)),
    (
        "zero-snr",
        EULER
        | {
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
        },
        (30, 5.0),
    ),
    ("FLUX.1-schnell", FLOW | {"shift": 3.0}, (4, 0.0)),
    ("unnamed", FLOW | {"shift": 1.0}, (4, 0.0)),
    ("flux-like", FLOW | {"use_dynamic_shifting": True, "shift": 1.0}, (30, 1.0)),
]


@pytest.mark.parametrize(("name", "config", "wanted"), MAKERS, ids=lambda value: str(value)[-40:])
def test_distilled_models_get_their_makers_steps_and_guidance(
    tmp_path: Path, name: str, config: dict[str, Any], wanted: tuple[int, float]
) -> None:
    flow = str(config["_class_name"]).startswith("Flow")
    card = read_card(rescheduled(tmp_path / name, config, FLUX if flow else SDXL))
    assert (card.default_steps, card.default_guidance) == wanted


def test_a_model_of_the_hubs_cache_is_called_as_it_is_there(tmp_path: Path) -> None:
    place = tmp_path / "models--stabilityai--sdxl-turbo" / "snapshots" / "71153311d3db"
    place.parent.mkdir(parents=True)
    card = read_card(rescheduled(place, TURBO))
    assert (card.name, card.default_steps) == ("sdxl-turbo", 1)


def test_an_operators_file_goes_before_the_models_own(tmp_path: Path) -> None:
    model = copied(tmp_path / "m")
    file = tmp_path / "settings.json"
    for key in (model, "pocket-sdxl"):
        file.write_text(json.dumps({key: {"steps": 3, "guidance": 0}}))
        card = Catalogue.load([model], settings_file=str(file)).default
        assert (card.default_steps, card.default_guidance, card.default_width) == (3, 0.0, 128)
    file.write_text(json.dumps({model: {"stepps": 3}}))
    with pytest.raises(Misconfigured, match=r"DARKROOM_MODEL_SETTINGS, .*unknown field `stepps`"):
        Catalogue.load([model], settings_file=str(file))
    with pytest.raises(Misconfigured, match=r"DARKROOM_MODEL_SETTINGS names .* cannot be read"):
        Catalogue.load([model], settings_file=str(tmp_path / "absent"))


def test_settings_of_a_model_that_is_not_given_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"sdxl-trubo": {"steps": 3}}))
    Catalogue.load([SDXL], settings_file=str(file))
    assert "'sdxl-trubo', which is none of the models here" in caplog.text


def test_one_model_that_cannot_be_used_is_listed_and_stops_no_other(tmp_path: Path) -> None:
    bad = copied(tmp_path / "bad", {"unet/config.json": {"num_class_embeds": 5}})
    (tmp_path / "bad" / "darkroom.json").write_text('{"name": "bad"}')
    twin, gone = copied(tmp_path / "twin"), str(tmp_path / "gone")
    catalogue = Catalogue.load([bad, SDXL, twin, gone])
    assert list(catalogue.cards) == ["pocket-sdxl"]
    reasons = {one.name: one.reason for one in catalogue.unusable}
    assert "num_class_embeds is 5" in reasons["bad"]
    assert "both named pocket-sdxl" in reasons["pocket-sdxl"]
    assert "neither a directory nor a hub id" in reasons["gone"]
    with pytest.raises(InvalidRequest, match=r"bad cannot be used: .*num_class_embeds"):
        validate(GenerationRequest(job_id="a" * 32, prompt="x", model="bad"), catalogue)
    with pytest.raises(Misconfigured, match="num_class_embeds is 5"):
        Catalogue.load([bad])


def test_a_model_that_is_given_twice_is_served_once(tmp_path: Path) -> None:
    catalogue = Catalogue.load([SDXL, FLUX, SDXL])
    assert (list(catalogue.cards), catalogue.unusable) == (["pocket-sdxl", "pocket-flux"], ())


def test_a_network_that_is_told_its_guidance_has_its_makers(tmp_path: Path) -> None:
    fields = {"unet/config.json": {"time_cond_proj_dim": 8}, "darkroom.json": None}
    card = read_card(copied(tmp_path / "plain", fields))
    assert (card.embedded_guidance, card.default_guidance) == (True, 5.0)
    card = read_card(copied(tmp_path / "lcm-sdxl", fields))
    assert (card.default_steps, card.default_guidance) == (4, 8.0)
    wanted = GenerationRequest(job_id="a" * 32, prompt="x", negative_prompt="y")
    with pytest.raises(InvalidRequest, match="trained with its guidance in it"):
        validate(wanted, Catalogue(cards={card.name: card}))


def test_one_controlnet_that_cannot_be_used_is_listed_and_stops_no_other(tmp_path: Path) -> None:
    good = Path(DEFAULT_CONTROLS) / "edges" / "config.json"
    odd: dict[str, dict[str, Any] | None] = {
        "edges": {},
        "union": {"_class_name": "ControlNetUnionModel"},
        "pools": {"global_pool_conditions": True},
        "classes": {"num_class_embeds": 3},
        "depth": {"conditioning_embedding_out_channels": [8, 16, 32]},
        "broken": None,
    }
    for name, fields in odd.items():
        (tmp_path / name).mkdir()
        text = "{" if fields is None else json.dumps(json.loads(good.read_text()) | fields)
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "empty").mkdir()
    found, unusable = sort_controls([str(tmp_path)])
    reasons = {one.name: one.reason for one in unusable}
    assert sorted(found) == ["depth", "edges"]
    assert sorted(reasons) == ["broken", "classes", "pools", "union"]
    assert "global_pool_conditions is true" in reasons["pools"]
    catalogue = Catalogue.load([SDXL], controls=[str(tmp_path)])
    # A picture that is halved once less does not meet the latents.
    assert list(catalogue.controls_for("pocket-sdxl")) == ["edges"]
