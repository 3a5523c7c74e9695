"""Steps of several denoisers in one forward."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from shared.errors import DarkroomError
from shared.messages import ControlledRow, named_handles
from shared.messages.handle import TensorHandle
from shared.models.contracts.controlnet import ControlNet
from shared.models.contracts.network import Conditioning
from shared.tensors.cache import TensorCache

MAX_IMAGES: Final = 32
"""In one forward, unless a single step has more."""

Put = Callable[[str, torch.Tensor], TensorHandle]
"""Gives a tensor away on behalf of a job."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadRow:
    """A row of a step with its tensors: the conditioning of its one or two images, each by
    itself, and the hint (C, H, W)."""

    row: ControlledRow
    conditioning: tuple[Conditioning, ...]
    hint: torch.Tensor

    @classmethod
    async def read(cls, row: ControlledRow, network: ControlNet, tensors: TensorCache) -> "ReadRow":
        """As `network` takes it. Raises `HandleLost` if one of the row's tensors is lost, and
        `InvalidRequest` if it has not as many."""
        handles = [named_handles(network.names, text) for text in row.texts]
        conditioning = [
            {name: await tensors.get(one) for name, one in each.items()} for each in handles
        ]
        return cls(
            row,
            conditioning=tuple(
                Conditioning.of_one(each, row.scalars[: network.scalars]) for each in conditioning
            ),
            hint=await tensors.get(row.hint),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one denoiser asks for: x (rows, C, H, W)."""

    x: torch.Tensor
    rows: tuple[ReadRow, ...]

    @property
    def images(self) -> list[tuple[int, int]]:
        """(row, which of its texts) of each image: first all the unconditional ones."""
        guided = [(k, 0) for k, one in enumerate(self.rows) if len(one.conditioning) == 2]
        return guided + [(k, -1) for k in range(len(self.rows))]

    @property
    def key(self) -> tuple[object, ...]:
        """Steps with the same one fit into one forward."""
        first = self.rows[0]
        return *self.x.shape[1:], *first.conditioning[0].lengths, *first.hint.shape


@dataclass(frozen=True, slots=True)
class Computed:
    """Residuals one behind the other, and their shapes; see `shared.messages.ControlReply`."""

    residuals: TensorHandle | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    error: Exception | None = None
    """Why there are none."""
    not_finite: tuple[int, ...] = ()
    """Rows whose residuals are not finite, and left out."""
    widened: tuple[int, ...] = ()
    """Rows whose residuals took float32."""


def compute(network: ControlNet, put: Put, steps: Sequence[Step]) -> list[Computed]:
    """Those of one shape together. If that fails, each is computed alone: only the culprit fails
    then."""
    found: dict[int, Computed] = {}
    for batch in _batches(steps):
        found |= zip(batch, _attempt(network, put, [steps[k] for k in batch]), strict=True)
    return [found[k] for k in range(len(steps))]


def _attempt(network: ControlNet, put: Put, steps: Sequence[Step]) -> list[Computed]:
    try:
        residuals = _forward(network, steps)
    except Exception as error:
        if len(steps) == 1:
            return [Computed(error=error)]
        return [one for step in steps for one in _attempt(network, put, [step])]
    sizes = [len(step.images) for step in steps]
    own = zip(*(torch.split(residual, sizes) for residual in residuals), strict=True)
    return [_given(network, put, step, parts) for step, parts in zip(steps, own, strict=True)]


def _given(
    network: ControlNet, put: Put, step: Step, residuals: Sequence[torch.Tensor]
) -> Computed:
    """What is not finite is computed once more in float32, where the network's dtype is narrower;
    what stays so is left out."""
    not_finite = narrow = _not_finite(step, residuals)
    if narrow and network.dtype is not torch.float32:
        anew = torch.tensor([row in narrow for row, _ in step.images]).view(-1, 1, 1, 1)
        pairs = zip(_forward(network.wide, [step]), residuals, strict=True)
        residuals = [torch.where(anew.to(b.device), a, b.float()) for a, b in pairs]
        not_finite = _not_finite(step, residuals)
    widened = tuple(row for row in narrow if row not in not_finite)
    if not_finite:
        left = [i for i, (row, _) in enumerate(step.images) if row not in not_finite]
        residuals = [part[left] for part in residuals]
        if not left:
            return Computed(not_finite=not_finite)
    flat = torch.cat([part.reshape(-1) for part in residuals])
    try:
        handle = put(step.rows[0].row.job_id, flat)
    except DarkroomError as error:
        return Computed(error=error)
    shapes = tuple(tuple(part.shape) for part in residuals)
    return Computed(handle, shapes, not_finite=not_finite, widened=widened)


def _not_finite(step: Step, residuals: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Rows some of whose images have residuals that are not finite."""
    if all(bool(part.isfinite().all()) for part in residuals):
        return ()
    fine = torch.stack([part.flatten(1).isfinite().all(1) for part in residuals]).all(0).tolist()
    return tuple(sorted({row for (row, _), one in zip(step.images, fine, strict=True) if not one}))


def _batches(steps: Sequence[Step]) -> list[list[int]]:
    """Numbers of the steps that are computed together."""
    groups: defaultdict[tuple[object, ...], list[list[int]]] = defaultdict(list)
    for k, step in enumerate(steps):
        batches = groups[step.key]
        images = sum(len(steps[other].images) for other in batches[-1]) if batches else 0
        if not batches or images + len(step.images) > MAX_IMAGES:
            batches.append([])
        batches[-1].append(k)
    return [batch for batches in groups.values() for batch in batches]


def _forward(network: ControlNet, steps: Sequence[Step]) -> list[torch.Tensor]:
    device, dtype = network.device, network.dtype
    images = [(step, *image) for step in steps for image in step.images]
    rows = [step.rows[k] for step, k, _ in images]
    conditioning = [
        one.conditioning[which] for one, (_, _, which) in zip(rows, images, strict=True)
    ]

    def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(tensors)).to(device, dtype)

    return network.residuals(
        stacked([step.x[k] for step, k, _ in images]),
        torch.tensor([one.row.t for one in rows], device=device),
        Conditioning.join(conditioning).to(device, dtype),
        stacked([one.hint for one in rows]),
        network.scales([(one.row.scale, one.row.guess_mode) for one in rows]),
    )
