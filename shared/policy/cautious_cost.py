"""What promises are made by: a step takes what it takes when the host is busy. Pure."""

from typing import Final

from shared.policy.cost_model import PACE_STEPS, CostModel
from shared.policy.step_work import StepWork

UNSEEN: Final = 0.25
"""Most relative error of what is predicted from before a rest: what the host does now is not seen
yet. Who shares a step on the word of it may make everybody late who is there."""


class CautiousCost:
    """`cost` at its `busy_pace` (`StepCost`). Nothing is added for doubt where the last steps were
    measured since the last rest: the pace has it. After a rest it may have become what it was at
    any of the last steps: a process that has its device to itself is hardly doubted."""

    __slots__ = ("_cost", "_ratio", "doubt", "known", "slowness")

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._ratio = cost.slowness
        self.slowness = 1.0
        self.known = cost.known
        self.doubt = _doubt(cost)

    def __repr__(self) -> str:
        return f"<CautiousCost {self._ratio:.2f} times as slow>"

    def predict(self, work: StepWork) -> float:
        return self._ratio * self._cost.predict(work)

    def least(self, work: StepWork) -> float:
        return self._cost.least(work)

    def untried(self, work: StepWork) -> bool:
        return self._cost.untried(work)


def _doubt(cost: CostModel) -> float:
    if not cost.lately:
        return cost.doubt
    return 0.0 if len(cost.paces) >= PACE_STEPS else min(UNSEEN, cost.spread)
