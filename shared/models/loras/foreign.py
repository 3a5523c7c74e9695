"""Which architecture a LoRA's file was made for, as far as its header tells."""

import re
from collections.abc import Mapping
from typing import Final

from shared.models.contracts.family import Family
from shared.models.files.safetensors_header import Header, Shapes
from shared.models.loras.keys import parse_key

NOTES: Final = ("modelspec.architecture", "ss_base_model_version")
"""What trainers note in a file."""
_NOTED: Final = (
    (r"(stable-diffusion-xl|sdxl|sd_xl).*refiner", "the SDXL refiner"),
    (r"stable-diffusion-xl|sdxl|sd_xl", "SDXL"),
    (r"flux[-_. ]?2(?![a-z0-9])", "FLUX.2"),
    (r"chroma", "Chroma"),
    (r"flux", "FLUX"),
    (r"flex[-_. ]?[12](?![a-z0-9])", "Flex"),
    (r"stable-diffusion-v?1|(?<![a-z])sd[-_ ]?v?1", "Stable Diffusion 1"),
    (r"stable-diffusion-v?2|(?<![a-z])sd[-_ ]?v?2", "Stable Diffusion 2"),
    (r"stable-diffusion-v?3|(?<![a-z])sd[-_ ]?v?3", "Stable Diffusion 3"),
    (r"stable[-_ ]?cascade|w[uü]rstchen", "Stable Cascade"),
    (r"hunyuan[-_ ]?dit", "HunyuanDiT"),
    (r"hunyuan[-_ ]?image", "HunyuanImage"),
    (r"hunyuan|framepack", "HunyuanVideo"),
    (r"(?<![a-z])wan(?![a-z])", "Wan"),
    (r"qwen", "Qwen-Image"),
    (r"lumina", "Lumina"),
    (r"z[-_ ]?image", "Z-Image"),
    (r"hi[-_ ]?dream", "HiDream"),
    (r"aura[-_ ]?flow", "AuraFlow"),
    (r"pixart", "PixArt"),
    (r"kolors", "Kolors"),
    (r"kandinsky", "Kandinsky"),
    (r"cogview", "CogView"),
    (r"cogvideo", "CogVideoX"),
    (r"(?<![a-z])ltx", "LTX-Video"),
    (r"(?<![a-z])sana(?![a-z])", "Sana"),
    (r"omnigen", "OmniGen"),
    (r"cosmos", "Cosmos"),
)
"""By what is in `NOTES`, the first that applies."""
_TWO_STREAMS: Final = "FLUX or Stable Diffusion 3"
_A_UNET: Final = "a UNet (Stable Diffusion or SDXL)"
_LAYERS: Final = (
    (r"joint_blocks_\d", "Stable Diffusion 3"),
    (r"joint_transformer_blocks_\d", "AuraFlow"),
    (r"double_stream_blocks_\d", "HiDream"),
    (r"(double|single)_stream_modulation|.*_to_qkv_mlp_proj$", "FLUX.2"),
    (r"distilled_guidance_layer", "Chroma"),
    (r"double_blocks_(\d+_(img|txt)_(mlp_fc|mod_linear)|(19|[2-9]\d)_)", "HunyuanVideo"),
    (r"single_blocks_(\d+_modulation_linear|(3[89]|[4-9]\d)_)", "HunyuanVideo"),
    (r"((double|single)_blocks|single_transformer_blocks)_\d", "FLUX"),
    (r"transformer_blocks_(\d+_(img|txt)_(mod|mlp)|([4-9]\d)_attn_)", "Qwen-Image"),
    (r"transformer_blocks_(19|[23]\d)_attn_", "Qwen-Image or Stable Diffusion 3"),
    (r"transformer_blocks_\d+_(attn|ff|ff_context|norm1|norm1_context)_", _TWO_STREAMS),
    (r"transformer_blocks_\d+_attn[12]_", "PixArt, LTX-Video or CogVideoX"),
    (r"caption_projection|adaln_single", "PixArt"),
    (r"blocks_\d+_(self_attn|cross_attn|attn[12]|ffn)_", "Wan"),
    (r"(layers|context_refiner|noise_refiner)_\d+_(attention|feed_forward)", "Lumina or Z-Image"),
    (r".*motion_modules", "AnimateDiff"),
    (r"(down|up|input|output)_blocks_\d|mid_block_|middle_block_", _A_UNET),
)
"""By the layers of its denoising network, the first form that one of them begins with. FLUX has 19
double blocks and 38 single ones, HunyuanVideo 20 and 40, Qwen-Image 60."""
_WIDTHS: Final[Mapping[str, tuple[tuple[str, ...], Mapping[int, str]]]] = {
    _A_UNET: (
        ("attn2_to_k", "attn2_to_v"),
        {
            768: "Stable Diffusion 1",
            1024: "Stable Diffusion 2",
            1280: "the SDXL refiner",
            2048: "SDXL",
        },
    ),
    _TWO_STREAMS: (
        ("_attn_to_q", "_attn_to_k", "_attn_to_v", "_attn_add_q_proj"),
        {1536: "Stable Diffusion 3", 2432: "Stable Diffusion 3"},
    ),
}
"""Which layers tell more by how many inputs they have: those that see the prompt, or the stream."""


def noted(header: Header, family: Family) -> str:
    """In words, the architecture that the file's notes name, if none of them names that of
    `family`; empty if none names any that is known."""
    found = [name for note in NOTES if (name := _named(header.metadata.get(note, "")))]
    return "" if family.architecture in found else next(iter(found), "")


def seen(left: Shapes, family: Family) -> str:
    """In words, the architecture of the layers that these tensors of a file are for, which have no
    use in a model of `family`, if it is another one; empty if not, or if nothing tells."""
    found = _of_layers(_denoiser_inputs(left))
    alike = {_A_UNET: family.denoiser == "unet", _TWO_STREAMS: family.denoiser == "transformer"}
    return "" if found == family.architecture or alike.get(found) else found


def _named(note: str) -> str:
    return next((name for words, name in _NOTED if re.search(words, note.lower())), "")


def _denoiser_inputs(shapes: Shapes) -> dict[str, int]:
    """How many inputs the layers of a denoising network have; 0: that is not known."""
    found: dict[str, int] = {}
    for key, shape in shapes.items():
        parsed = parse_key(key)
        if parsed.place is not None and parsed.place.network == "denoiser":
            inputs = shape[1] if parsed.role == "down" and len(shape) > 1 else 0
            found[parsed.place.name] = inputs or found.get(parsed.place.name, 0)
    return found


def _of_layers(inputs: dict[str, int]) -> str:
    found = next((name for form, name in _LAYERS if any(map(re.compile(form).match, inputs))), "")
    if found in _WIDTHS:
        endings, known = _WIDTHS[found]
        widths = [inputs[name] for name in inputs if name.endswith(endings)]
        return next((known[width] for width in widths if width in known), found)
    return found
