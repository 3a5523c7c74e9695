"""What the keys of LoRA files say, in all of their dialects: which network a tensor is for, which
place in it, and what it is there.

    <network><place><role>
    unet.                down_blocks.1.attentions.0.proj_in   .lora_A.weight         diffusers, PEFT
    base_model.model.    transformer_blocks.0.attn.to_q       .lora_B.style.weight   PEFT
    diffusion_model.     double_blocks.0.img_attn.qkv         .lora_A.weight         ai-toolkit
    lora_unet_           input_blocks_4_1_proj_in             .lora_down.weight      kohya
    lora_te1_            text_model_encoder_layers_0_mlp_fc1  .alpha                 OneTrainer
                         double_blocks.0.processor.proj       _lora1.up.weight       XLabs
"""

import re
from typing import Final, Literal

import msgspec

Role = Literal["down", "up", "bias", "alpha", "magnitude", "dora_scale", "bias_difference"]
"""`down`, `up`: the two matrices; `bias`: of the second one. `magnitude`, `dora_scale`: DoRA's, as
PEFT and as LyCORIS has it. `bias_difference`: what is added to the layer's own bias."""

_ROLE: Final = re.compile(
    r"(?:\.lora_(?P<matrix>A|B|down|up)"
    r"(?:(?:\.(?!lora_)[^.]+)*?\.(?P<kind>weight|bias)|\.(?!weight$|bias$)[^.]+)?"
    r"|(?:\.lora|\.lora_linear_layer|_lora(?P<stream>[12]?))\.(?P<older>down|up)\.weight"
    r"|\.(?P<alpha>alpha)"
    r"|\.(?P<dora>dora_scale)"
    r"|\.(?P<magnitude>lora_magnitude_vector)(?:(?:\.[^.]+)*?\.weight|\.[^.]+)?"
    r"|\.(?P<difference>diff_b))$"
)
"""How a key ends. An adapter may have any name in PEFT's form."""
_UNSUPPORTED: Final = (
    (re.compile(r"\.hada_(?:w\d|t\d)\w*(?:\.weight)?$"), "LoHa is not supported"),
    (re.compile(r"\.lokr_(?:w\d|t\d)\w*(?:\.weight)?$"), "LoKr is not supported"),
    (re.compile(r"\.lora_mid(?:\.[^.]+)*$"), "Tucker decomposition is not supported"),
    (re.compile(r"\.b?oft_\w+(?:\.[^.]+)*$"), "OFT is not supported"),
    (re.compile(r"\.(?:on_input|ia3_l(?:\.[^.]+)*)$"), "IA3 is not supported"),
    (re.compile(r"\.(?:a1|a2|b1|b2)\.weight$"), "GLoRA is not supported"),
    (re.compile(r"\.lora_(?:E|embedding_A|embedding_B)(?:\.[^.]+)*$"), "it is no plain LoRA's"),
    (re.compile(r"\.vera_lambda_[bd](?:\.[^.]+)*$"), "VeRA is not supported"),
    (re.compile(r"\.scalar$"), "a scalar of LyCORIS is not supported"),
    (re.compile(r"\.(?:diff|set_weight|w_norm|b_norm)$"), "whole weights are not supported"),
)
"""What modules of other methods end with. Nothing else of such a place can be used either."""
_EMBEDDING: Final = re.compile(r"^(?:bundle_emb|emb_params|clip_[lg]$|t5$)|\.string_to_param\b")
UNKNOWN: Final = "it is no low-rank weight that we know"

_WRAPPERS: Final = ("base_model.model.", "module.", "model.", "_orig_mod.")
_DENOISER: Final = re.compile(
    r"(?:model\.)?(?:unet|transformer|diffusion_model)\.|(?:lora_(?:unet|transformer)|lycoris)_"
)
_ENCODER: Final = re.compile(
    r"(?:text_encoders?[._])?(?P<name>clip_[lg]|t5(?:xxl)?)\.(?:transformer\.)?"
    r"|(?P<dotted>text_encoder(?:_\d)?|te\d?)\."
    r"|lora_(?P<flat>te\d?|text_encoder(?:_\d)?|clip_[lg]|t5(?:xxl)?)_"
)


class Place(msgspec.Struct, frozen=True):
    """`network`: `denoiser`, or what the dialect calls a text encoder; `name`: of the layer, with
    `_` between all of its parts."""

    network: str
    name: str


class Key(msgspec.Struct, frozen=True):
    """`place` is None where nothing can be said; with a `reason` it cannot be used."""

    place: Place | None
    role: Role | None
    reason: str = ""


def parse_key(key: str) -> Key:
    if match := _ROLE.search(key):
        place, role = _place(key[: match.start()], match["stream"] or ""), _role(match)
        return Key(place, role, "" if role else "a bias of the first matrix is not supported")
    for ending, reason in _UNSUPPORTED:
        if match := ending.search(key):
            return Key(_place(key[: match.start()]), None, reason)
    embedding = "an embedding (textual inversion) is no LoRA"
    return Key(None, None, embedding if _EMBEDDING.search(key) else UNKNOWN)


def _role(match: re.Match[str]) -> Role | None:
    if match["alpha"]:
        return "alpha"
    if match["dora"]:
        return "dora_scale"
    if match["magnitude"]:
        return "magnitude"
    if match["difference"]:
        return "bias_difference"
    first = (match["matrix"] or match["older"]) in ("A", "down")
    if match["kind"] == "bias":
        return None if first else "bias"
    return "down" if first else "up"


def _place(path: str, stream: str = "") -> Place:
    """`stream`: which of a block's two XLabs means."""
    path, network = _unwrapped(path), "denoiser"
    if match := _ENCODER.match(path):
        network = match["name"] or match["dotted"] or match["flat"]
        path = _unwrapped(path[match.end() :])
    elif match := _DENOISER.match(path):
        path = _unwrapped(path[match.end() :])
    name = f"{path}{stream}".replace(".processor.", ".").replace(".", "_")
    return Place(network, name.removesuffix("_lora"))


def _unwrapped(path: str) -> str:
    """Without the names of what PEFT and others put around a network."""
    while True:
        for wrapper in _WRAPPERS:
            if path.startswith(wrapper):
                path = path.removeprefix(wrapper)
                break
        else:
            return path
