"""What tells whether text tensors hold the scene: a probe for training the text encoders."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocket.scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, Scene

OPEN = -100  # the target of what a caption leaves open: cross-entropy ignores it

_KINDS = {"shape": SHAPES, "colour": tuple(COLOURS), "size": SIZES}
_WIDTH_OUT = sum(len(names) + 1 for names in _KINDS.values())  # one more each: nothing there


class Probe(nn.Module):
    """Reads the scene back from the text tensors; thrown away once the encoders are trained."""

    def __init__(self, width: int, pooled_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(PLACES) + 1, width) * 0.1)
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.item = nn.Linear(width, _WIDTH_OUT)
        self.ground = nn.Linear(width, len(BACKGROUNDS))
        self.pooled = nn.Linear(pooled_width, len(PLACES) * _WIDTH_OUT + len(BACKGROUNDS))

    def forward(self, hidden: Tensor, pooled: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Two opinions, each (n, places, _WIDTH_OUT) and (n, backgrounds) logits."""
        queries = self.queries.expand(len(hidden), -1, -1)
        read, _ = self.attend(queries, hidden, hidden, need_weights=False)
        flat = self.pooled(pooled)
        items = flat[:, : -len(BACKGROUNDS)].unflatten(1, (len(PLACES), _WIDTH_OUT))
        return [
            (self.item(read[:, :-1]), self.ground(read[:, -1])),
            (items, flat[:, -len(BACKGROUNDS) :]),
        ]


def targets(scene: Scene, left_open: frozenset[str] = frozenset()) -> list[int]:
    """Shape, colour and size at each place (the last index: nothing there); then background."""
    at = {item.place: item for item in scene.items}
    out = []
    for place in PLACES:
        for kind, names in _KINDS.items():
            item = at.get(place)
            is_open = item is not None and kind in left_open
            name = getattr(item, kind, None)
            out.append(OPEN if is_open else names.index(name) if name else len(names))
    ground = list(BACKGROUNDS).index(scene.background)
    return [*out, OPEN if "background" in left_open else ground]


def split_kinds(items: Tensor) -> list[Tensor]:
    """(n, places, _WIDTH_OUT) into one (n, places, classes) for each kind."""
    return list(torch.split(items, [len(names) + 1 for names in _KINDS.values()], -1))


def losses(opinions: list[tuple[Tensor, Tensor]], wanted: Tensor) -> list[Tensor]:
    """Cross-entropies of each opinion with `targets`, (n, 16), one for each kind of attribute."""
    out = []
    per_place = torch.unflatten(wanted[:, :-1], 1, (len(PLACES), len(_KINDS)))
    for items, ground in opinions:
        for n, logits in enumerate(split_kinds(items)):
            logits = logits.float()
            out.append(F.cross_entropy(logits.flatten(0, 1), per_place[..., n].flatten()))
        out.append(F.cross_entropy(ground.float(), wanted[:, -1]))
    return out
