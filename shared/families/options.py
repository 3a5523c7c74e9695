"""Which options of a component's config are honoured: a written list for each class, and the check.

An option that is `read` may have any value: diffusers builds the component by it, and nothing here
depends on which it is. One that is `fixed` may have the values that are listed. Options in neither
list are not the class's own, and diffusers ignores them too.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Options:
    """Of class `kind`. The first value of a `fixed` option is the class's own default, unless it is
    `needed`: then a config has to have it. Of an option that is a list each part is looked at."""

    kind: str
    read: frozenset[str]
    fixed: Mapping[str, tuple[Any, ...]]
    needed: frozenset[str] = frozenset()

    def check(self, folder: str, config: Mapping[str, Any]) -> None:
        """Raises `Misconfigured` naming the first option of `folder`'s config that is not
        honoured."""
        kind = config.get("_class_name", self.kind)
        if kind != self.kind:
            raise Misconfigured(f"{folder}/ is a {kind}; served is {self.kind}")
        for name, allowed in self.fixed.items():
            if name not in config and name not in self.needed:
                continue
            value = config.get(name)
            parts = value if isinstance(value, list | tuple) else [value]
            if any(part not in allowed for part in parts):
                shown = " or ".join(json.dumps(one) for one in allowed)
                raise Misconfigured(
                    f"{folder}/config.json: {name} is {json.dumps(value)}; honoured is {shown}"
                )


CLIP_TOKENIZER: Final = (
    frozenset({"tokenizer.json"}),
    frozenset({"vocab.json", "merges.txt"}),
)
T5_TOKENIZER: Final = (frozenset({"tokenizer.json"}), frozenset({"spiece.model"}))
"""Files without which a tokenizer knows no words, and says nothing: one of these sets."""
AUTOENCODER: Final = Options(
    "AutoencoderKL",
    frozenset(
        {
            "act_fn",
            "block_out_channels",
            "down_block_types",
            "force_upcast",
            "latent_channels",
            "latents_mean",
            "latents_std",
            "layers_per_block",
            "mid_block_add_attention",
            "norm_num_groups",
            "sample_size",
            "scaling_factor",
            "shift_factor",
            "up_block_types",
            "use_post_quant_conv",
            "use_quant_conv",
        }
    ),
    {"in_channels": (3,), "out_channels": (3,)},
)
"""Of every family; see `shared/families/base.py`."""


def whole(folder: str, config: Mapping[str, Any], name: str, default: Any = None) -> int:
    """Option `name` as a whole number above 0. Raises `Misconfigured`."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Misconfigured(
            f"{folder}/config.json: {name} is {json.dumps(value)}; "
            "honoured is a whole number above 0"
        )
    return value


def number(folder: str, config: Mapping[str, Any], name: str, default: Any = None) -> float:
    """Option `name` as a finite number. Raises `Misconfigured`."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        shown = json.dumps(value)
        raise Misconfigured(f"{folder}/config.json: {name} is {shown}; honoured is a number")
    return float(value)


def same(what: str, value: int, other: str, wanted: int | None) -> None:
    """Raises `Misconfigured` if two components that meet differ; None: the other does not say."""
    if wanted is not None and value != wanted:
        raise Misconfigured(f"{what} is {value}, but {other} {wanted}: they do not fit together")


def check_autoencoder(config: Mapping[str, Any], latent_channels: int) -> None:
    """Raises `Misconfigured` if it is not honoured, or does not fit a network of so many
    channels."""
    AUTOENCODER.check("vae", config)
    levels = config["block_out_channels"]
    if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
        raise Misconfigured(
            f"vae/config.json: block_out_channels is {json.dumps(levels)}; "
            "honoured is a list of channels"
        )
    own = whole("vae", config, "latent_channels", 4)
    same("latent_channels of the autoencoder", own, "the network's images have", latent_channels)
    both = ("latents_mean", "latents_std")
    for name in both:
        if (told := config.get(name)) is not None:
            same(f"the length of the autoencoder's {name}", len(told), "latent_channels is", own)
    if (config.get(both[0]) is None) != (config.get(both[1]) is None):
        raise Misconfigured(f"vae/config.json: honoured are {' and '.join(both)}, or neither")
    if number("vae", config, "scaling_factor", 0.18215) == 0.0:
        raise Misconfigured("vae/config.json: scaling_factor is 0; honoured is any other number")


def refuse_ignored(config: Mapping[str, Any], names: Sequence[str], pipeline: str) -> None:
    """Raises `Misconfigured` if the autoencoder's config asks for what diffusers' `pipeline` leaves
    out."""
    for name in names:
        if config.get(name):
            raise Misconfigured(
                f"vae/config.json: {name} is {json.dumps(config[name])}; honoured is null, for "
                f"diffusers' {pipeline} takes no notice of it"
            )
