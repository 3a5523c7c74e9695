"""What promises are made by: a step takes what it takes when the host is busy. Pure."""

from shared.policy.cost_model import CostModel
from shared.policy.step_work import StepWork


class CautiousCost:
    """`cost` at its `busy_pace` (`StepCost`). Nothing is added for doubt where steps were measured:
    the pace has it."""

    __slots__ = ("_cost", "_ratio", "doubt", "known")

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._ratio = cost.busy_pace / cost.pace
        self.known = cost.known
        self.doubt = 0.0 if cost.lately else cost.doubt

    def __repr__(self) -> str:
        return f"<CautiousCost {self._ratio:.2f} times as slow>"

    def predict(self, work: StepWork) -> float:
        return self._ratio * self._cost.predict(work)

    def least(self, work: StepWork) -> float:
        return self._cost.least(work)

    def untried(self, work: StepWork) -> bool:
        return self._cost.untried(work)
