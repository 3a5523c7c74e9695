"""How far a job is, as its events tell, and where its time went, as its outcome tells. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.messages import JobEvent, NodeProgress, StageTime, StepProgress

KINDS: Final = ("encode", "encode_image", "hint", "denoise", "decode")
"""The stages of a job, in order."""


@dataclass(slots=True)
class Stage:
    """One stage over all images of a job. `done` of `total` nodes, or denoising steps."""

    kind: str
    total: int
    done: int = 0
    state: Literal["waiting", "running", "done"] = "waiting"

    def __str__(self) -> str:
        count = f" {self.done}/{self.total}" if self.total > 1 else ""
        return f"{self.kind}: {self.state}{count}"


class Stages:
    """The stages of a job of `images` images with `controls` ControlNets; `edit`: with one
    that they begin from. Events may be lost: what comes later tells more."""

    def __init__(self, images: int, controls: int = 0, edit: bool = False) -> None:
        self._images = images
        self.standing = ""
        """While it waits to be released: how it stands."""
        self._steps: dict[int, int] = {}
        self._nodes = {
            "encode": 1,
            "encode_image": int(edit),
            "hint": controls,
            "denoise": images,
            "decode": images,
        }
        self._finished: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self.by_kind = {kind: Stage(kind, self._nodes[kind]) for kind in KINDS if self._nodes[kind]}

    def __repr__(self) -> str:
        return f"<Stages {', '.join(map(str, self.by_kind.values()))}>"

    def take(self, event: JobEvent) -> None:
        match event:
            case StepProgress(index=index, step=step, steps=steps):
                stage = self.by_kind["denoise"]
                self._steps[index] = step
                stage.total, stage.done = steps * self._images, sum(self._steps.values())
                stage.state = "running"
            case NodeProgress(kind="plan", state=state):
                self.standing = "" if state == "finished" else _standing(event)
            case NodeProgress(kind=kind) if kind in self.by_kind:
                self._node(self.by_kind[kind], event)

    def finish(self) -> None:
        """The job is done, whatever was heard of it."""
        for stage in self.by_kind.values():
            stage.done, stage.state = stage.total, "done"

    def _node(self, stage: Stage, event: NodeProgress) -> None:
        if event.state == "started":
            stage.state = "running"
            return
        finished = self._finished[stage.kind]
        finished.add(event.node)
        if stage.kind != "denoise":
            stage.done = len(finished)
        if len(finished) == self._nodes[stage.kind]:
            stage.done, stage.state = stage.total, "done"


def _standing(event: NodeProgress) -> str:
    if event.model_state is not None:
        left = event.loading_seconds
        seconds = "" if left is None or event.model_state != "loading" else f", about {left:.0f} s"
        return f"the model is {event.model_state}{seconds}"
    if event.position is None:
        return ""
    seconds = "" if event.seconds is None else f", about {event.seconds:.0f} s"
    return f"place {event.position} in line{seconds}"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that the slowest node of one kind waited, and ran."""

    waiting: float
    running: float


def spent_by_kind(stages: Sequence[StageTime]) -> dict[str, Spent]:
    """Images run side by side, so a kind took as long as its slowest node."""
    found: dict[str, Spent] = {}
    for stage in stages:
        before = found.get(stage.kind, Spent(0.0, 0.0))
        found[stage.kind] = Spent(
            max(before.waiting, stage.waiting), max(before.running, stage.running)
        )
    return found
