"""One image in flight. A row is its whole state, so it can stop anywhere and go on elsewhere."""

from collections.abc import Hashable, Mapping
from copy import copy
from dataclasses import InitVar, dataclass, field
from typing import TypeVar

import torch

from services.denoiser.rows.extension import RowExtension
from services.denoiser.sampling.initial_latents import MaskBlend, SourceImage, begin
from services.denoiser.sampling.noise import Noise
from services.denoiser.sampling.step_table import StepTable
from shared.errors import InvalidRequest
from shared.messages import ServiceClass
from shared.models.contracts.network import Conditioning
from shared.policy.batch_key import ShapeKey
from shared.policy.step_work import StepWork
from shared.worker.task import Tensors

Extension = TypeVar("Extension", bound=RowExtension)


@dataclass(slots=True, eq=False, kw_only=True)
class Row:
    """At step 0 when it is made. Raises `InvalidRequest` if guidance has no unconditional half to
    work with, or one of another prompt length.

    `latents` and `x0_prev`, float32 (1, C, H, W), are replaced by every step, never written into:
    whoever holds them may keep them."""

    job_id: str
    node: str
    index: int
    seed: int
    table: StepTable
    shape: InitVar[tuple[int, int, int]]
    """Of its latents: (C, H, W)."""
    image: InitVar[SourceImage | None] = None
    """That it begins from; None: from noise alone."""
    cond: Conditioning
    """Of one image, as is the other half of guidance,"""
    uncond: Conditioning | None = None
    """None: no guidance, one forward per step instead of two."""
    guidance: float = 1.0
    service_class: ServiceClass = "standard"
    previews: frozenset[int] = frozenset()
    """Numbers of finished steps after which the predicted image is wanted."""
    deadline: float | None = None
    """Unix seconds after which the image is of no use."""
    wanted_by: float | None = None
    """Unix seconds by which it should be finished, if it has no deadline."""
    texts: tuple[Tensors, ...] = ()
    """Handles to the conditioning of its images, by name, the unconditional one first."""
    extensions: tuple[RowExtension, ...] = ()
    step: int = field(default=0, init=False)
    """Steps that are done."""
    noise: Noise = field(init=False)
    latents: torch.Tensor = field(init=False)
    x0_prev: torch.Tensor = field(init=False)
    mask_blend: MaskBlend | None = field(init=False)
    """Of the image that it began from; None: nothing."""

    def __post_init__(self, shape: tuple[int, int, int], image: SourceImage | None) -> None:
        cond, uncond = self.cond, self.uncond
        if uncond is not None and uncond.lengths != cond.lengths:
            lengths = (cond.lengths, uncond.lengths)
            raise InvalidRequest("negative_prompt", lengths, "as many tokens as the prompt")
        if self.guidance > 1.0 and uncond is None:
            allowed = "at most 1 without unconditional embeddings"
            raise InvalidRequest("guidance", self.guidance, allowed)
        if self.guidance <= 1.0:
            self.uncond = None
        self.noise = Noise(self.seed, shape, ahead=1 if image is None else image.draws)
        self.latents, self.mask_blend = begin(image, self.table, self.noise)
        self.x0_prev = torch.zeros_like(self.latents)

    def resume(self, step: int, tensors: Mapping[str, torch.Tensor]) -> "Row":
        """This row, just begun, as `checkpoint` left it after `step` steps elsewhere.

        Raises `InvalidRequest` if the checkpoint is not one of such a row."""
        latents = tensors.get("latents")
        if latents is None or latents.shape != self.latents.shape:
            found = None if latents is None else tuple(latents.shape)
            raise InvalidRequest("checkpoint", found, f"latents of {tuple(self.latents.shape)}")
        if not 0 <= step < self.table.steps:
            raise InvalidRequest("checkpoint", step, f"step 0 to {self.table.steps - 1}")
        x0_prev = tensors.get("x0_prev")
        if x0_prev is None and self.table.v[step] != 0.0:
            raise InvalidRequest("checkpoint", sorted(tensors), "one with x0_prev")
        row = copy(self)
        row.step, row.latents = step, latents.float()
        row.x0_prev = torch.zeros_like(self.latents) if x0_prev is None else x0_prev.float()
        return row

    def checkpoint(self) -> dict[str, torch.Tensor]:
        """What `resume` needs beside `step`, on the CPU; `x0_prev` if the next step uses it."""
        tensors = {"latents": self.latents.cpu()}
        if not self.finished and self.table.v[self.step] != 0.0:
            tensors["x0_prev"] = self.x0_prev.cpu()
        return tensors

    def move(self, device: torch.device) -> None:
        """Bring the row's tensors to where the network is."""
        self.cond = self.cond.to(device)
        self.uncond = None if self.uncond is None else self.uncond.to(device)
        self.latents = self.latents.to(device)
        self.x0_prev = self.x0_prev.to(device)
        self.mask_blend = None if self.mask_blend is None else self.mask_blend.to(device)

    @property
    def predicted(self) -> torch.Tensor:
        """The clean latents that its last step saw ahead, with what it keeps of an image."""
        return (
            self.x0_prev
            if self.mask_blend is None
            else self.mask_blend.over(self.x0_prev, self.mask_blend.image)
        )

    @property
    def finished(self) -> bool:
        return self.step >= self.table.steps

    @property
    def blocked(self) -> bool:
        """It can take no step yet: what it needs for it is not here."""
        return any(extension.blocked(self.step) for extension in self.extensions)

    @property
    def asks(self) -> bool:
        """Within a step it waits for what other processes compute."""
        return any(extension.asks for extension in self.extensions)

    @property
    def local(self) -> bool:
        """Its next step needs what only this process has at hand."""
        return any(extension.local for extension in self.extensions)

    @property
    def version(self) -> tuple[Hashable, ...]:
        """Of what it computes with; see `RowExtension.version`."""
        return tuple(extension.version for extension in self.extensions)

    @property
    def t(self) -> float:
        """The time of its next step, as the network takes it."""
        return float(self.table.coefficients[self.step, 0])

    @property
    def scalars(self) -> tuple[float, ...]:
        return tuple(self.cond.scalars[0].tolist())

    @property
    def forwards(self) -> int:
        """Images the network sees of this row in a step."""
        return 1 if self.uncond is None else 2

    @property
    def work(self) -> StepWork:
        """Of its next step: the one place that says how much of a row is computed."""
        return self._partial_work or StepWork.full(self.forwards, self.shape_key.tokens)

    @property
    def computed_in_full(self) -> bool:
        """Nothing less than all its positions are computed in its next step."""
        full = StepWork.full(self.forwards, self.shape_key.tokens)
        return self._partial_work is None or self._partial_work.tokens == full.tokens

    @property
    def _partial_work(self) -> StepWork | None:
        works = (each.work(self.forwards, self.shape_key) for each in self.extensions)
        return next((work for work in works if work is not None), None)

    def extension(self, kind: type[Extension]) -> Extension | None:
        """Its extension of that class, if it has one."""
        return next((each for each in self.extensions if isinstance(each, kind)), None)

    def approximations(self, steps: int) -> set[str]:
        """What was not computed exactly in its first `steps` steps."""
        return set[str]().union(*(e.approximations(self.index, steps) for e in self.extensions))

    def warnings(self) -> set[str]:
        """What else the user should know, as warnings."""
        return set[str]().union(*(each.warnings() for each in self.extensions))

    def close(self) -> None:
        """It is not computed here any more."""
        for extension in self.extensions:
            extension.close()

    @property
    def shape_key(self) -> ShapeKey:
        _, channels, height, width = self.latents.shape
        return ShapeKey(channels, height, width, self.cond.lengths)

    def __repr__(self) -> str:
        return (
            f"<Row {self.job_id}/{self.node} {self.step}/{self.table.steps} {self.table.sampler}>"
        )
