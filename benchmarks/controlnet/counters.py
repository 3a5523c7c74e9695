"""What the way to ControlNets and back costs, from the counters of a denoiser. Pure."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Self

from benchmarks.harness.numbers import MILLISECONDS


@dataclass(frozen=True, slots=True)
class Counters:
    """That a denoiser asked in `steps` steps; see `EngineStatistics`. Seconds and bytes of all of
    them together."""

    steps: int = 0
    rounds: int = 0
    seconds: float = 0.0
    hops: float = 0.0
    waited: float = 0.0
    message_bytes: int = 0
    tensor_bytes: int = 0

    @classmethod
    def between(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> Self:
        """Those between two looks at the `EngineStatistics` of an engine."""
        fields = ("steps", *(f"control_{name}" for name in cls.__slots__[1:]))
        return cls(*(after[field] - before[field] for field in fields))

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def answer(self) -> float:
        """Seconds until the mean question was answered."""
        return self.seconds / max(1, self.rounds)

    @property
    def hop(self) -> float:
        """Of those, seconds in which its ControlNet did not work on it: the way, and the queue."""
        return self.hops / max(1, self.rounds)

    @property
    def wait(self) -> float:
        """Seconds for which the mean step waited."""
        return self.waited / max(1, self.steps)

    @property
    def hidden(self) -> float:
        """Share of the time until answers came in which the denoiser had other work. Of several
        questions in a step only the wait for the last one counts."""
        return 1.0 - self.wait / self.answer if self.rounds else 0.0

    def report(self) -> dict[str, float]:
        """Bytes are those of the mean step."""
        steps = max(1, self.steps)
        return {
            "answer_ms": round(MILLISECONDS * self.answer, 3),
            "hop_microseconds": round(1e6 * self.hop, 1),
            "waited_ms": round(MILLISECONDS * self.wait, 3),
            "hidden_share": round(self.hidden, 3),
            "message_bytes": round(self.message_bytes / steps),
            "tensor_bytes": round(self.tensor_bytes / steps),
        }
