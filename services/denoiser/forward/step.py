"""One denoising step of a batch of rows, whatever their samplers, positions and guidance."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch

from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import MaskBlend
from shared.models.contracts.network import Beside, Conditioning, Network


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What stays the same from step to step while `rows` run together.

    The network sees the unconditional halves of the guided rows, then the conditional halves of
    all: `source` (F,) names the row of each. `base` (B,) is where each row's guidance starts from:
    its unconditional half, or its only one."""

    rows: tuple[Row, ...]
    conditioning: Conditioning
    source: torch.Tensor
    base: torch.Tensor
    guidance: torch.Tensor
    """(B, 1, 1, 1)"""
    versions: tuple[Hashable, ...]
    """Of each row; see `RowExtension.version`."""
    mask_blend: MaskBlend | None
    """What the rows keep of the images that they began from; None: nothing."""
    beside: Beside = field(default_factory=Beside)
    """What predictors have the network compute with, for the F images."""

    @classmethod
    def of(cls, rows: Sequence[Row], network: Network) -> "Batch":
        """Rows must have one shape key, and be on the network's device."""
        guided = [i for i, row in enumerate(rows) if row.uncond is not None]
        halves = [row.uncond for row in rows if row.uncond is not None]
        halves += [row.cond for row in rows]
        base = list(range(len(guided), len(halves)))
        for position, i in enumerate(guided):
            base[i] = position
        device, dtype = network.device, network.dtype
        return cls(
            rows=tuple(rows),
            conditioning=Conditioning.join(halves).to(device, dtype),
            source=torch.tensor([*guided, *range(len(rows))], device=device),
            base=torch.tensor(base, device=device),
            guidance=torch.tensor([row.guidance for row in rows], device=device).view(-1, 1, 1, 1),
            versions=tuple(row.version for row in rows),
            mask_blend=MaskBlend.join(
                [row.mask_blend for row in rows], [row.latents for row in rows]
            ),
        )

    def images(self, i: int) -> tuple[int, ...]:
        """Which of the F images are those of row i; the unconditional one comes first."""
        cond = len(self.source) - len(self.rows) + i
        return (cond,) if self.rows[i].uncond is None else (int(self.base[i]), cond)

    def still_is(self, rows: Sequence[Row]) -> bool:
        """Whether it is the batch of `rows`, with what they compute with by now."""
        versions = tuple(row.version for row in rows)
        return (self.rows, self.versions) == (tuple(rows), versions)


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """The rows' next latents and predicted clean latents, float32 (B, C, H, W)."""

    x: torch.Tensor
    x0: torch.Tensor
    finite: tuple[bool, ...]
    """Per row: neither has become NaN or infinite."""


def whole(
    network: Network, batch: Batch, x: torch.Tensor, t: torch.Tensor, more: Beside | None = None
) -> torch.Tensor:
    """The answers (F, C, H, W) for the batch's images, in one forward, to what the network is fed
    of its rows, x (B, C, H, W) at times t (B,); with `more` beside what the batch has."""
    beside = batch.beside | (more or {})
    return network.predict(x[batch.source], t[batch.source], batch.conditioning, **beside)


Answer = Callable[[Network, Batch, torch.Tensor, torch.Tensor], torch.Tensor]
"""As `whole`."""


@torch.inference_mode()
def step(network: Network, batch: Batch, answer: Answer = whole) -> Stepped:
    """Take each row's next step; the rows themselves are left as they are (see `StepTable`)."""
    rows = batch.rows
    x = torch.cat([row.latents for row in rows])
    x0_prev = torch.cat([row.x0_prev for row in rows])
    t, c_in, p, q, r, u, v, n, a, s = _coefficients(rows, x.device)

    fed = (c_in * x).to(network.dtype)
    out = guided(batch, answer(network, batch, fed, t.flatten()).float())
    x0 = p * x + q * out
    x = r * x + u * x0 + v * x0_prev
    if any(row.table.draws for row in rows):
        x = x + n * noise(rows, x)
    if batch.mask_blend is not None:
        x = batch.mask_blend.over(x, a * batch.mask_blend.image + s * batch.mask_blend.noise)
    return Stepped(x, x0, finite(x + x0))


def settle(device: torch.device) -> None:
    """Return when what was begun on `device` is done: only then does a clock say what it took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def network_input(rows: Sequence[Row], dtype: torch.dtype) -> torch.Tensor:
    """What the network is fed of `rows` in their next step, (B, C, H, W)."""
    x = torch.cat([row.latents for row in rows])
    return (_coefficients(rows, x.device)[1] * x).to(dtype)


def _coefficients(rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Those of each row's next step, (B, 1, 1, 1) each."""
    each = torch.stack([row.table.coefficients[row.step] for row in rows]).to(device)
    return each.view(len(rows), -1, 1, 1, 1).unbind(1)


def guided(batch: Batch, out: torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6), of the answers for all images."""
    base, cond = out[batch.base], out[-len(batch.rows) :]
    return base + batch.guidance * (cond - base)


def noise(rows: Sequence[Row], like: torch.Tensor) -> torch.Tensor:
    """This step's draws, zero for the rows whose sampler draws none."""
    drawn = [
        row.noise.at(row.step) if row.table.draws else torch.zeros(1, *like.shape[1:])
        for row in rows
    ]
    return torch.cat(drawn).to(like.device)


def finite(x: torch.Tensor) -> tuple[bool, ...]:
    return tuple(x.flatten(1).isfinite().all(1).tolist())
