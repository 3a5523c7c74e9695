"""Which architecture a LoRA's file was made for, as far as its header tells: for errors."""

import re
from typing import Final

from shared.adapters.header import Header
from shared.families.base import Family

_NOTED: Final = (
    ("stable-diffusion-xl", "SDXL"),
    ("sdxl", "SDXL"),
    ("flux", "FLUX"),
    ("stable-diffusion-v1", "Stable Diffusion 1"),
    ("sd_v1", "Stable Diffusion 1"),
    ("sd_1", "Stable Diffusion 1"),
    ("stable-diffusion-v2", "Stable Diffusion 2"),
    ("sd_v2", "Stable Diffusion 2"),
    ("stable-diffusion-3", "Stable Diffusion 3"),
    ("sd3", "Stable Diffusion 3"),
    ("hunyuan", "HunyuanVideo"),
    ("wan", "Wan"),
    ("qwen-image", "Qwen-Image"),
    ("lumina", "Lumina"),
    ("chroma", "Chroma"),
)
"""In the notes `modelspec.architecture` and `ss_base_model_version` of a file."""
_KEYS: Final = (
    (r"joint_blocks[._]\d", "Stable Diffusion 3"),
    (r"(double|single)_blocks[._]\d+[._](img_attn|txt_attn|linear\d|processor)", "FLUX"),
    (r"single_transformer_blocks[._]\d", "FLUX"),
    (r"transformer_blocks[._]\d+[._](img_mod|txt_mlp|img_mlp)", "Qwen-Image"),
    (r"attn[._]add_q_proj", "FLUX or Stable Diffusion 3"),
    (r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn|ffn)[._]", "Wan"),
    (r"(^|[._])(caption_projection|adaln_single)[._]", "PixArt"),
    (r"(^|[._])layers[._]\d+[._](attention|feed_forward)[._]", "Lumina or Z-Image"),
)
_CONTEXTS: Final = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    1280: "the SDXL refiner",
    2048: "SDXL",
}
"""Width of what a UNet's cross-attention is told."""
_A_UNET: Final = "a UNet (Stable Diffusion or SDXL)"
_CROSS: Final = re.compile(r"attn2[._](?:processor\.)?to_k\b.*(?:lora_A|lora_down|_lora\.down)")
_UNET: Final = re.compile(r"(?:down|up|input|output)_blocks[._]\d|mid(?:dle)?_block[._]")


def architecture(header: Header, family: Family) -> str:
    """In words, if it is another one than that of `family`; empty if not, or if nothing tells."""
    found = _noted(header) or _seen(header)
    known = found == family.architecture or (found == _A_UNET and family.denoiser == "unet")
    return "" if known else found


def _noted(header: Header) -> str:
    notes = [header.metadata.get(k) for k in ("modelspec.architecture", "ss_base_model_version")]
    for note in filter(None, notes):
        for start, name in _NOTED:
            if start in note.lower():
                return name
    return ""


def _seen(header: Header) -> str:
    for pattern, name in _KEYS:
        if any(re.search(pattern, key) for key in header.shapes):
            return name
    for key, shape in header.shapes.items():
        if _CROSS.search(key) and len(shape) > 1 and shape[1] in _CONTEXTS:
            return _CONTEXTS[shape[1]]
    return _A_UNET if any(_UNET.search(key) for key in header.shapes) else ""
