"""How a job that waits stands, as whoever watches it or asks is told."""

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from shared.bus.model_states import ModelState
from shared.messages import NodeProgress, WaitingReply
from shared.policy.release.jobs import Prediction

NOTHING_KNOWN: Final = Prediction(None, None)


@dataclass(frozen=True, slots=True)
class Standing:
    """`model`: what the job waits for, if its model is not loaded."""

    prediction: Prediction = NOTHING_KNOWN
    model: ModelState | None = None

    @property
    def shown(self) -> "Standing":
        """With seconds of loading only as they are shown: what differs by less is not told."""
        if self.model is None or self.model.seconds is None:
            return self
        rounded = msgspec.structs.replace(self.model, seconds=round(self.model.seconds))
        return replace(self, model=rounded)

    def reply(self, job_id: str) -> WaitingReply:
        return WaitingReply(
            job_id=job_id,
            position=self.prediction.position,
            seconds=self.prediction.seconds,
            model_state=self.model.state if self.model else None,
            loading_seconds=self.model.seconds if self.model else None,
        )

    def progress(self, job_id: str, planner: str, at: float) -> NodeProgress:
        """`at`: Unix seconds."""
        return NodeProgress(
            job_id=job_id,
            node="plan",
            kind="plan",
            state="started",
            at=at,
            worker=planner,
            position=self.prediction.position,
            seconds=self.prediction.seconds,
            model_state=self.model.state if self.model else None,
            loading_seconds=self.model.seconds if self.model else None,
        )
