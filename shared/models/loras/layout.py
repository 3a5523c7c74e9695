"""Where each tensor of a LoRA's file goes, and which have no place: by its header alone, so that a
gateway can tell without reading a weight, and without torch."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Final

import msgspec

from shared.errors import AdapterUnusable
from shared.models.contracts.family import Family
from shared.models.files.layers import CLIP, Piece
from shared.models.files.safetensors_header import FLOATING, KINDS, Header, Shape, Shapes
from shared.models.loras.foreign import noted, seen
from shared.models.loras.keys import Key, Place, Role, parse_key

SHOWN: Final = 3
"""Tensors that an error names."""
MAX_SHOWN: Final = 200
"""Characters of a tensor's name in an error or a result."""
MAX_LEFT: Final = 100
"""Tensors that a result names."""
_BIASES: Final[tuple[Role, ...]] = ("bias", "bias_difference")
_KINDS: Final = (FLOATING, KINDS - {"C64"})
"""Types that are read, of matrices and of alphas."""
_CLIP: Final = CLIP.replace(".", "_")


class Source(msgspec.Struct, frozen=True):
    """What a file has for one of its places: `keys` by their roles, for `pieces`, the layers of
    network `part` whose outputs are side by side there."""

    part: str
    pieces: tuple[Piece, ...]
    keys: dict[Role, str]


class Layout(msgspec.Struct, frozen=True):
    """`left`: tensors without a use, and why. `parts`: the networks that the file is about."""

    sources: tuple[Source, ...]
    left: dict[str, str]
    parts: frozenset[str]

    def said(self) -> tuple[str, ...]:
        """What is left, for a result."""
        shown = [f"{_short(key)} ({reason})" for key, reason in list(self.left.items())[:MAX_LEFT]]
        more = len(self.left) - MAX_LEFT
        return (*shown, *([f"and {more} more"] if more > 0 else []))


def layout(name: str, header: Header, family: Family, *, partial: bool = False) -> Layout:
    """Of the file of LoRA `name` for a model of `family`, as far as the files of its networks are
    on this host. Raises `AdapterUnusable` if it is for another architecture, if nothing of it has
    a use, or, unless `partial`, if any tensor has none."""
    found = _Found(family)
    if not header.shapes:
        raise AdapterUnusable(name, "it has no weights")
    if other := noted(header, family):
        raise _foreign(name, other, family)
    for place, roles in _places(name, header, found).items():
        found.add(place, roles, header.shapes)
    if twice := found.twice():
        raise AdapterUnusable(name, f"{twice} are for the same layer")
    if other := seen({key: header.shapes[key] for key in found.left}, family):
        raise _foreign(name, other, family)
    if not (found.sources or found.unknown) or (found.left and not partial):
        raise AdapterUnusable(name, _refusal(found.left, len(header.shapes), bool(found.sources)))
    return Layout(tuple(found.sources), found.left, frozenset(found.parts))


def _foreign(name: str, other: str, family: Family) -> AdapterUnusable:
    reason = f"it is a LoRA for {other}, and this model is {family.architecture}"
    return AdapterUnusable(name, reason)


class _Found:
    """A layout as it grows."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.sources: list[Source] = []
        self.left: dict[str, str] = {}
        self.parts: set[str] = set()
        self.unknown = False
        """Whether it is about a network whose files are not here."""

    def add(self, place: Place, roles: Mapping[Role, str], shapes: Shapes) -> None:
        part = part_of(place, self._family)
        if part is None:
            self.leave(roles.values(), f"this model has no text encoder {place.network}")
            return
        self.parts.add(part)
        layers = self._family.layers[part]
        pieces = targets(self._family, part).get(place.name.removeprefix(_CLIP))
        if not layers:
            self.unknown = True
        elif pieces is None:
            self.leave(roles.values(), f"this model has no such layer in its {part}")
        elif problem := _problem(part, pieces, roles, shapes, layers):
            self.leave(roles.values(), problem)
        else:
            biased = all(piece.layer in self._family.biased[part] for piece in pieces)
            unused = [] if biased else [role for role in _BIASES if role in roles]
            self.leave([roles[role] for role in unused], "this layer has no bias in this model")
            keys = {role: key for role, key in roles.items() if role not in unused}
            self.sources.append(Source(part, pieces, keys))

    def twice(self) -> str:
        """Two tensors for one layer, under different names; empty if there are none."""
        seen: dict[tuple[str, str], str] = {}
        for source in self.sources:
            for piece in source.pieces:
                other = seen.setdefault((source.part, piece.layer), source.keys["down"])
                if other != source.keys["down"]:
                    return f"{_short(other)} and {_short(source.keys['down'])}"
        return ""

    def leave(self, keys: Iterable[str], reason: str) -> None:
        self.left |= dict.fromkeys(keys, reason)


def part_of(place: Place, family: Family) -> str | None:
    """The network of `family` that `place` is in; None if it has no such text encoder."""
    if place.network == "denoiser":
        return family.denoiser
    return family.lora_encoders.get(place.network)


@lru_cache(maxsize=32)
def targets(family: Family, part: str) -> Mapping[str, tuple[Piece, ...]]:
    """The layers of network `part` by every name that LoRAs have for them, with `_` for dots."""
    own = {layer: (Piece(layer),) for layer in family.layers[part]}
    names = {**family.lora_names(part), **own}
    return {name.replace(".", "_"): pieces for name, pieces in names.items()}


def _places(name: str, header: Header, found: _Found) -> dict[Place, dict[Role, str]]:
    """The keys by place and role; those that have none are left, and so is the rest of a place
    with a tensor that is not supported."""
    places: dict[Place, dict[Role, str]] = {}
    unusable: dict[Place, str] = {}
    for key in header.shapes:
        parsed, kind = parse_key(key), header.kinds.get(key, "F32")
        if parsed.place is not None and kind not in _KINDS[parsed.role == "alpha"]:
            reason = f"its numbers are {kind}; read are {', '.join(sorted(FLOATING))}"
            parsed = Key(parsed.place, None, parsed.reason or reason)
        if parsed.place is None or parsed.role is None:
            found.leave([key], parsed.reason)
            if parsed.place is not None:
                unusable[parsed.place] = parsed.reason
            continue
        roles = places.setdefault(parsed.place, {})
        if parsed.role in roles:
            both = f"{_short(roles[parsed.role])} and {_short(key)}"
            raise AdapterUnusable(name, f"{both} are both the {parsed.role} of one layer")
        roles[parsed.role] = key
    for place, reason in unusable.items():
        found.leave(places.pop(place, {}).values(), reason)
    return places


def _problem(
    part: str, pieces: Sequence[Piece], roles: Mapping[Role, str], shapes: Shapes, layers: Shapes
) -> str:
    """Why the tensors `roles` cannot be added to the layers `pieces`; empty if they can."""
    if missing := [role for role in ("down", "up") if role not in roles]:
        return f"its place has no {' and no '.join(missing)} matrix"
    inputs = layers[pieces[0].layer][1:]
    outputs = sum(layers[piece.layer][0] for piece in pieces)
    down, up = shapes[roles["down"]], shapes[roles["up"]]
    rank = down[0] if down else 0
    if not (rank and _same(down, (rank, *inputs)) and _same(up, (outputs, rank))):
        names = ", ".join(f"{part}.{piece.layer}" for piece in pieces)
        return (
            f"its matrices, {down} and {up}, do not fit together, or not to {names}, which is "
            f"{(outputs, *inputs)} in this model"
        )
    if "alpha" in roles and prod(shapes[roles["alpha"]]) != 1:
        return f"its alpha is no number, but {shapes[roles['alpha']]}"
    if "magnitude" in roles and "dora_scale" in roles:
        return "it has two magnitudes (DoRA) for one layer"
    for role in ("bias", "bias_difference", "magnitude", "dora_scale"):
        if role in roles and not _is_vector(role, shapes[roles[role]], outputs, inputs[0]):
            return f"the {role} is {shapes[roles[role]]}, for {outputs} outputs"
    by_input = "dora_scale" in roles and is_by_input(shapes[roles["dora_scale"]])
    if by_input and len(pieces) > 1:
        return "magnitudes (DoRA) of the inputs of several layers at once are not supported"
    return ""


def is_by_input(dora_scale: Shape) -> bool:
    """Whether LyCORIS normalised each input's weights, and not each output's."""
    return len(dora_scale) > 1 and dora_scale[0] == 1 and prod(dora_scale) > 1


def _same(shape: Shape, wanted: Shape) -> bool:
    """Whether a matrix is `wanted`, but for sizes of 1 at the end, or with its kernel flat."""
    flat = (wanted[0], prod(wanted[1:]))
    return shape == flat or _trimmed(shape) == _trimmed(wanted)


def _trimmed(shape: Shape) -> Shape:
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _is_vector(role: str, shape: Shape, outputs: int, inputs: int) -> bool:
    """Whether it has a number for each output, or where `is_by_input` for each input. PEFT has a
    convolution's magnitude in the second place."""
    if role == "dora_scale" and is_by_input(shape):
        return _trimmed(shape[1:]) == _trimmed((inputs,))
    if role == "magnitude" and len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    return _trimmed(shape) == _trimmed((outputs,))


def _short(key: str) -> str:
    """A stranger may have made it of any length."""
    return key if len(key) <= MAX_SHOWN else f"{key[: MAX_SHOWN - 1]}…"


def _refusal(left: Mapping[str, str], tensors: int, rest: bool) -> str:
    """About a file of so many tensors; `rest`: whether some of them could be used."""
    shown = "; ".join(f"{_short(key)}: {reason}" for key, reason in list(left.items())[:SHOWN])
    more = f"; and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    hint = " (partial: true leaves them out)" if rest else ""
    return f"{len(left)} of its {tensors} tensors have no use here{hint}: {shown}{more}"
