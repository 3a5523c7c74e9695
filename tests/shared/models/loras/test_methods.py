"""rsLoRA, DoRA and biases count as PEFT has them: in a bank, for each image, and merged."""

import json
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shared.errors import AdapterUnusable
from shared.models.families.sdxl.family import Sdxl
from shared.models.files.safetensors_header import Shapes
from shared.models.loras.read import read_adapter
from shared.models.lowrank.bank import AdaptedNetwork
from shared.models.lowrank.weights import Adapter
from tests.helpers.loras import biased_of, shapes_of

LAYERS = ["conv", "point", "tokens", "vector"]
RANK, ALPHA = 3, 2.0


class Net(nn.Module):
    """A layer of each kind that adapters are for, for images (N, 4, 6, 6); one has no bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.point = nn.Conv2d(8, 8, 1, bias=False)
        self.tokens = nn.Linear(8, 5)
        self.vector = nn.Linear(5, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.point(self.conv(x)).flatten(2).transpose(1, 2)
        out: torch.Tensor = self.vector(self.tokens(x).mean(1))
        return out


class Toy(Sdxl):
    layers: dict[str, Shapes] = {"unet": shapes_of(Net()), "text_encoder": {}, "text_encoder_2": {}}  # noqa: RUF012
    biased = {"unet": biased_of(Net())}  # noqa: RUF012


def config(**how: Any) -> peft.LoraConfig:
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": LAYERS, **how}
    return peft.LoraConfig(init_lora_weights=False, **settings)


def with_peft(**how: Any) -> Any:
    torch.manual_seed(8)
    model = peft.get_peft_model(Net(), config(**how))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name or "lora_B.default.bias" in name:
                parameter.add_(torch.rand_like(parameter))
    return model.eval()


def adapter(folder: Path, model: Any, name: str = "default", **how: Any) -> Adapter:
    """What PEFT saves, with what it notes about it."""
    state = peft.get_peft_model_state_dict(model, adapter_name=name)
    path = folder / "style.safetensors"
    noted = {"unet.r": RANK, "unet.lora_alpha": ALPHA, **{f"unet.{k}": v for k, v in how.items()}}
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(noted)})
    return read_adapter("style", path, Toy("", {}))


METHODS: list[dict[str, Any]] = [{}, {"use_rslora": True}, {"use_dora": True}]
METHODS += [{"use_dora": True, "use_rslora": True}]


@pytest.mark.parametrize("how", METHODS, ids=lambda how: "+".join(how) or "plain")
@torch.inference_mode()
def test_it_is_what_peft_computes_whatever_the_scale(tmp_path: Path, how: dict[str, Any]) -> None:
    model = with_peft(**how)
    found = adapter(tmp_path, model, **how)
    net = Net()
    network = AdaptedNetwork("unet", net)
    network.check(found)
    x = torch.randn(4, 4, 6, 6)
    plain = net(x)
    scales = [1.0, 0.4, -0.5]
    expected = [plain[:1]]
    for k, scale in enumerate(scales, 1):
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.set_scale("default", scale)
        expected.append(model(x[k : k + 1]))
    with network.using(network.bank([[], *([(found, scale)] for scale in scales)])):
        torch.testing.assert_close(net(x), torch.cat(expected), atol=1e-4, rtol=1e-4)
    network.merge([(found, 0.4)])
    torch.testing.assert_close(net(x[2:3]), expected[2], atol=1e-4, rtol=1e-4)
    network.merge([])
    assert torch.equal(net(x), plain)
    assert (expected[1] - plain[1:2]).abs().max() > 0.05


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_weights_of_half_the_size_are_adapted_too(tmp_path: Path, kind: torch.dtype) -> None:
    found = adapter(tmp_path, with_peft(use_dora=True), use_dora=True)
    exact, banked, merged = Net(), Net().to(kind), Net().to(kind)
    AdaptedNetwork("unet", exact).merge([(found, 0.5)])
    AdaptedNetwork("unet", merged).merge([(found, 0.5)])
    network, x = AdaptedNetwork("unet", banked), torch.randn(2, 4, 6, 6)
    with network.using(network.bank([[(found, 0.5)]] * 2)):
        torch.testing.assert_close(banked(x.to(kind)).float(), exact(x), atol=0.05, rtol=0.05)
    torch.testing.assert_close(merged(x.to(kind)).float(), exact(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("names", [("plain", "dora"), ("dora", "plain"), ("dora", "other")])
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
@torch.inference_mode()
def test_several_share_an_image_as_in_peft(tmp_path: Path, names: tuple[str, str]) -> None:
    """Where their order counts."""
    model = with_peft(use_dora=names[0] != "plain")
    torch.manual_seed(9)
    second = config(use_dora=names[1] != "plain")
    model.add_adapter("second", second)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name and "second" in name:
                parameter.add_(torch.rand_like(parameter))
    model.base_model.set_adapter(["default", "second"])
    uses = []
    for adapter_name in ("default", "second"):
        (tmp_path / adapter_name).mkdir()
        found = adapter(tmp_path / adapter_name, model, adapter_name)
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.set_scale(adapter_name, 0.7)
        uses.append((found, 0.7))
    banked, merged = Net(), Net()
    network, x = AdaptedNetwork("unet", banked), torch.randn(2, 4, 6, 6)
    with network.using(network.bank([uses, uses])):
        torch.testing.assert_close(banked(x), model(x), atol=1e-4, rtol=1e-4)
    with network.using(network.bank([uses, uses[:1]])):
        torch.testing.assert_close(banked(x)[:1], model(x[:1]), atol=1e-4, rtol=1e-4)
    AdaptedNetwork("unet", merged).merge(uses)
    torch.testing.assert_close(merged(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")
@torch.inference_mode()
def test_a_bias_of_the_second_matrix_counts_and_needs_one_to_be_added_to(tmp_path: Path) -> None:
    model = with_peft(lora_bias=True)
    with pytest.raises(AdapterUnusable, match=r"1 of its .*point.*lora_B\.bias: this layer has no"):
        adapter(tmp_path, model, lora_bias=True)
    found = read_adapter("style", tmp_path / "style.safetensors", Toy("", {}), partial=True)
    [left] = found.left
    assert "point.lora_B.bias" in left
    with torch.no_grad():
        model.get_submodule("base_model.model.point.lora_B.default").bias.zero_()
    net, x = Net(), torch.randn(2, 4, 6, 6)
    network = AdaptedNetwork("unet", net)
    with network.using(network.bank([[(found, 0.5)], [(found, 1.0)]])):
        torch.testing.assert_close(net(x)[1:], model(x[1:]), atol=1e-4, rtol=1e-4)
    banked, plain = net(x), Net()(x)
    assert torch.equal(banked, plain)
    network.merge([(found, 1.0)])
    torch.testing.assert_close(net(x), model(x), atol=1e-4, rtol=1e-4)
    network.merge([])
    assert torch.equal(net(x), plain)


def test_an_alpha_for_some_layers_alone_is_found(tmp_path: Path) -> None:
    model = with_peft()
    common = adapter(tmp_path, model).parts["unet"]
    own = adapter(tmp_path, model, alpha_pattern={"tokens": 6.0}, use_rslora=True).parts["unet"]
    root = math.sqrt(RANK)
    torch.testing.assert_close(own["tokens"].up, common["tokens"].up * (6.0 / ALPHA) * root)
    torch.testing.assert_close(own["vector"].up, common["vector"].up * root)


@pytest.mark.parametrize(
    "noted",
    [
        *("{", "[]", '{"unet.lora_alpha": "four"}', '{"unet.alpha_pattern": {"(a+)+": 1}}'),
        *('{"unet.alpha_pattern": {"(": 1}}', '{"unet.alpha_pattern": 3}'),
    ],
)
def test_notes_that_are_not_understood_are_refused(tmp_path: Path, noted: str) -> None:
    tensors = {"tokens.lora_A.weight": torch.ones(1, 8), "tokens.lora_B.weight": torch.ones(5, 1)}
    path = tmp_path / "style.safetensors"
    save_file(tensors, path, {"lora_adapter_metadata": noted})
    with pytest.raises(AdapterUnusable, match="in its header"):
        read_adapter("style", path, Toy("", {}))


def lycoris(weight: torch.Tensor, added: torch.Tensor, dora_scale: torch.Tensor) -> torch.Tensor:
    """As `apply_weight_decompose` of LyCORIS has it."""
    changed = weight + added
    dims = weight.dim() - 1
    if dora_scale.shape[0] == 1:
        length = changed.transpose(0, 1).flatten(1).norm(dim=1)
        scale = dora_scale / length.view(1, -1, *[1] * (dims - 1))
    else:
        scale = dora_scale / changed.flatten(1).norm(dim=1).view(-1, *[1] * dims)
    return torch.mul(changed, scale)


@pytest.mark.parametrize("by_input", [True, False])
@torch.inference_mode()
def test_dora_of_lycoris_counts_by_output_or_by_input(tmp_path: Path, by_input: bool) -> None:
    expected, tensors = Net(), dict[str, torch.Tensor]()
    for name in LAYERS:
        weight = expected.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        out, into, *kernel = weight.shape
        down, up = torch.randn(RANK, into, *kernel), torch.randn(out, RANK, *[1] * len(kernel))
        shape = (1, into) if by_input else (out, 1)
        scale = torch.rand(*shape, *[1] * len(kernel)) + 0.5
        added = (up.flatten(1) @ down.flatten(1)).view_as(weight) * ALPHA / RANK
        weight.copy_(lycoris(weight, added, scale))
        base = f"lora_unet_{name}"
        tensors |= {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up}
        tensors |= {f"{base}.alpha": torch.tensor(ALPHA), f"{base}.dora_scale": scale}
    path = tmp_path / "style.safetensors"
    save_file(tensors, path)
    found = read_adapter("style", path, Toy("", {}))
    merged, banked, x = Net(), Net(), torch.randn(3, 4, 6, 6)
    AdaptedNetwork("unet", merged).merge([(found, 1.0)])
    torch.testing.assert_close(merged(x), expected(x), atol=1e-4, rtol=1e-4)
    network = AdaptedNetwork("unet", banked)
    plain = banked(x[:1])
    with network.using(network.bank([[], [(found, 1.0)], [(found, 1.0)]])):
        both = torch.cat([plain, expected(x[1:])])
        torch.testing.assert_close(banked(x), both, atol=1e-4, rtol=1e-4)
    mixed = [[(found, 0.5), (found, 0.2)], [(found, 1.0)], []]
    with network.using(network.bank(mixed)):
        together = banked(x)
    for k, uses in enumerate(mixed):
        AdaptedNetwork("unet", alone := Net()).merge(uses)
        torch.testing.assert_close(together[k : k + 1], alone(x[k : k + 1]), atol=1e-4, rtol=1e-4)
