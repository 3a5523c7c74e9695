"""Every kind of component lies on pages of files, and is what its library loads, bit for bit."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, FluxTransformer2DModel, UNet2DConditionModel
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from shared.errors import Misconfigured
from shared.models.contracts.autoencoder import ImageAutoencoder, VideoAutoencoder
from shared.models.contracts.text_encoder import load_encoder
from shared.models.contracts.vae import AutoencoderNetwork
from shared.models.families.flux.transformer import FluxTransformer
from shared.models.families.sdxl.unet import SdxlControlNet, SdxlUnet
from shared.models.families.unet.unet import Unet
from shared.models.weights.pages import FilePages
from shared.models.weights.sharing import share_weights
from shared.shipped import MODELS
from tests.families.test_autoencoders import image_autoencoder, video_autoencoder
from tests.helpers.controls import make_control
from tests.helpers.flux import make_transformer
from tests.helpers.sd import make_sd_unet
from tests.services.denoiser.models import make_unet

NARROW: Final = (torch.bfloat16, torch.float16)
SHARD: Final = "40KB"

Load = Callable[[str, torch.dtype], Any]


class Case(NamedTuple):
    """`make`: a component of random weights, or where one of a model that ships is; `kind`: of its
    library; `load`: as services do."""

    make: Callable[[], Any] | str
    kind: Any
    folder: str
    load: Load


def by_encoder(kind: Any, folder: str) -> Load:
    return lambda source, dtype: load_encoder(kind, source, folder, "cpu", dtype)


def autoencoder(kind: Any) -> Load:
    return lambda source, dtype: AutoencoderNetwork.load(kind(), source, "cpu", dtype).module


def flux(source: str, dtype: torch.dtype) -> Any:
    return FluxTransformer.load(source, dtype).module


CASES: Final = {
    "sdxl": Case(
        make_unet, UNet2DConditionModel, "unet", lambda s, dtype: SdxlUnet.load(s, dtype).module
    ),
    "sd": Case(
        make_sd_unet, UNet2DConditionModel, "unet", lambda s, dtype: Unet.load(s, dtype).module
    ),
    "flux": Case(make_transformer, FluxTransformer2DModel, "transformer", flux),
    "pocket-flux": Case(MODELS["pocket-flux"], FluxTransformer2DModel, "transformer", flux),
    "controlnet": Case(
        lambda: make_control("edges"),
        ControlNetModel,
        "",
        lambda s, dtype: SdxlControlNet.load(s, dtype, "cpu")._module,
    ),
    "vae": Case(image_autoencoder, AutoencoderKL, "vae", autoencoder(ImageAutoencoder)),
    "video-vae": Case(
        video_autoencoder, AutoencoderKLQwenImage, "vae", autoencoder(VideoAutoencoder)
    ),
    "clip": Case(
        MODELS["pocket-sdxl"],
        CLIPTextModel,
        "text_encoder",
        by_encoder(CLIPTextModel, "text_encoder"),
    ),
    "clip-projected": Case(
        MODELS["pocket-sdxl"],
        CLIPTextModelWithProjection,
        "text_encoder_2",
        by_encoder(CLIPTextModelWithProjection, "text_encoder_2"),
    ),
    "t5": Case(
        MODELS["pocket-flux"],
        T5EncoderModel,
        "text_encoder_2",
        by_encoder(T5EncoderModel, "text_encoder_2"),
    ),
}


def written(case: Case, root: Path, **options: Any) -> str:
    """The component as float32 in a model's directory, as its library writes it. Returns the
    directory."""
    torch.manual_seed(3)
    if isinstance(case.make, str):
        own = case.kind.from_pretrained(case.make, subfolder=case.folder, dtype=torch.float32)
    else:
        own = case.make()
    own.save_pretrained(root / case.folder, **options)
    return str(root)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def by_library(case: Case, source: str, dtype: torch.dtype) -> Any:
    return case.kind.from_pretrained(Path(source) / case.folder, dtype=dtype)


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    """The weights are the same numbers of the same types, whatever their strides are."""
    own, other = found.state_dict(), expected.state_dict()
    own |= {name.replace("controlnet_cond_embedding.", ""): one for name, one in own.items()}
    for name, weight in other.items():
        if name.startswith("controlnet_cond_embedding."):
            continue  # our ControlNet has it beside its module
        assert own[name].dtype == weight.dtype, name
        assert torch.equal(own[name], weight), name


def is_shared(module: nn.Module) -> bool:
    weights = list(module.state_dict().values())
    return FilePages.mapped().private_bytes(weights) == 0


def entries(directory: Path) -> dict[str, int]:
    """When each was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in directory.glob("*/*.safetensors")}


@pytest.mark.linux
@pytest.mark.parametrize("dtype", [torch.float32, *NARROW], ids=str)
def test_a_component_is_what_its_library_loads_on_shared_pages(
    tmp_path: Path, converted: Path, case: Case, dtype: torch.dtype
) -> None:
    source = written(case, tmp_path / "model")
    overflows = case.folder == "vae" and dtype is torch.float16
    expected = by_library(case, source, torch.float32 if overflows else dtype)
    first = case.load(source, dtype)
    made = entries(converted)
    second = case.load(source, dtype)
    assert entries(converted) == made
    for module in (first, second):
        assert_same(module, expected)
        assert is_shared(module)


@pytest.mark.linux
def test_converted_weights_lie_as_those_that_were_not_kept(
    tmp_path: Path, converted: Path, case: Case
) -> None:
    source = written(case, tmp_path / "model")
    kept = case.load(source, torch.bfloat16).state_dict()
    share_weights(converted, 0)
    alone = case.load(source, torch.bfloat16).state_dict()
    assert {name: weight.stride() for name, weight in kept.items()} == {
        name: weight.stride() for name, weight in alone.items()
    }


@pytest.mark.linux
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["sdxl", "flux", "vae", "t5"])
def test_shards_are_shared_too(
    tmp_path: Path, converted: Path, name: str, dtype: torch.dtype
) -> None:
    case = CASES[name]
    source = written(case, tmp_path / "model", max_shard_size=SHARD)
    assert len(list((tmp_path / "model" / case.folder).glob("*.safetensors"))) > 1
    for _ in range(2):
        module = case.load(source, dtype)
        assert_same(module, by_library(case, source, dtype))
        assert is_shared(module)


@pytest.mark.linux
def test_what_has_the_dtype_already_is_not_written_again(tmp_path: Path, converted: Path) -> None:
    case = CASES["sdxl"]
    source = written(case, tmp_path / "model")
    assert is_shared(case.load(source, torch.float32))
    assert entries(converted) == {}


@pytest.mark.linux
def test_weights_that_changed_are_loaded_anew(
    tmp_path: Path, converted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES["sdxl"]
    source = written(case, tmp_path / "model")
    case.load(source, torch.bfloat16)
    changed = make_unet()
    nn.init.ones_(changed.conv_in.weight)
    changed.save_pretrained(tmp_path / "model" / "unet")
    module = case.load(source, torch.bfloat16)
    assert_same(module, changed.to(torch.bfloat16))
    assert is_shared(module)
    assert "diffusion_pytorch_model.safetensors of" in caplog.text
    assert len(entries(converted)) == 1


@pytest.mark.linux
def test_a_damaged_entry_is_replaced(
    tmp_path: Path, converted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES["clip"]
    source = written(case, tmp_path / "model")
    case.load(source, torch.bfloat16)
    [path] = converted.glob("*/*.safetensors")
    os.truncate(path, 100)
    module = case.load(source, torch.bfloat16)
    assert_same(module, by_library(case, source, torch.bfloat16))
    assert is_shared(module)
    assert "are made anew" in caplog.text


@pytest.mark.linux
def test_an_entry_whose_config_is_gone_is_replaced(
    tmp_path: Path, converted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES["sdxl"]
    source = written(case, tmp_path / "model")
    case.load(source, torch.bfloat16)
    [path] = converted.glob("*/config.json")
    path.unlink()
    assert_same(case.load(source, torch.bfloat16), by_library(case, source, torch.bfloat16))
    assert "cannot be read" in caplog.text
    assert is_shared(case.load(source, torch.bfloat16))


@pytest.mark.linux
def test_without_room_each_process_has_its_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    converted: Path,
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    case = CASES["vae"]
    source = written(case, tmp_path / "model")
    module = case.load(source, torch.bfloat16)
    assert_same(module, by_library(case, source, torch.bfloat16))
    assert not is_shared(module)
    [record] = caplog.records
    assert "are not shared with other processes" in record.message


@pytest.fixture
def _unusable(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "open").mkdir(mode=0o755)
    share_weights(tmp_path / "open", 1 << 30)
    yield
    share_weights(tmp_path / "open", 0)


@pytest.mark.usefixtures("_unusable")
def test_a_directory_that_cannot_be_used_stops_nothing(tmp_path: Path) -> None:
    case = CASES["sdxl"]
    source = written(case, tmp_path / "model")
    assert_same(case.load(source, torch.bfloat16), by_library(case, source, torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_that_do_not_fit_are_refused_and_not_kept(
    tmp_path: Path, converted: Path, dtype: torch.dtype
) -> None:
    case = CASES["sdxl"]
    source = written(case, tmp_path / "model")
    net = make_unet()
    del net.conv_out.bias
    net.conv_out.register_parameter("bias", None)
    net.save_pretrained(tmp_path / "model" / "unet")
    for _ in range(2):
        with pytest.raises(Misconfigured, match=r"lack conv_out\.bias"):
            case.load(source, dtype)
    assert entries(converted) == {}


@pytest.mark.linux
def test_a_component_that_left_the_cache_stays_what_it_is(tmp_path: Path, converted: Path) -> None:
    case = CASES["sdxl"]
    source = written(case, tmp_path / "model")
    module = case.load(source, torch.bfloat16)
    shutil.rmtree(converted)
    assert_same(module, by_library(case, source, torch.bfloat16))
