"""Whether a process takes work; if not, why. `PullLoop` knows it, `Process` tells it in its
answers to `$SRV.STATS`, and `shared/bus/discovery.py` reads it for whoever asks: `/readyz`, the
fleet, `darkroom status`, health checks, planners."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

REFUSAL: Final = "refusal"
"""Its name among the statistics of a process."""
WARNINGS: Final = "warnings"
"""Among them too, as a list of texts: what should be put right, though the process works."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a process takes no work, or does not get on with what it has. Being full is no reason:
    full of work is working."""

    reason: str
    lasting: bool = False
    """Whether neither time nor the end of what runs is likely to change it: a job that needs this
    process is better refused than kept waiting."""

    @staticmethod
    def of(statistics: Mapping[str, object]) -> "Refusal | None":
        """What a process told; None for one that takes work, or is too old to tell."""
        data = statistics.get(REFUSAL)
        if not isinstance(data, dict):
            return None
        return Refusal(str(data.get("reason", "")), data.get("lasting") is True)


def common(refusals: Collection[Refusal | None]) -> Refusal | None:
    """That of several which do the same work: one of theirs if all refuse, else none. It lasts if
    all of them do."""
    given = [refusal for refusal in refusals if refusal is not None]
    if not given or len(given) < len(refusals):
        return None
    return min(given, key=lambda refusal: refusal.lasting)
