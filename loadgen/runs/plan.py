"""A run as it was asked for."""

import msgspec

from loadgen.outcomes.limits import Limits
from loadgen.report.statistics.slo import OwnDeadlines, Slo
from loadgen.runs.find_rate import Search
from loadgen.targets.choose import TargetOptions
from loadgen.workload.workload import Workload, duration


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`users`: a closed loop of so many; None: an open loop. `search`: find a rate instead."""

    target: TargetOptions
    workload: Workload
    slo: Slo = OwnDeadlines()
    users: int | None = None
    think: float = 0.0
    limits: Limits = Limits()
    search: Search | None = None


def in_words(plan: Plan) -> str:
    """What is sent when, for people."""
    workload = plan.workload
    if plan.users is not None:
        return f"{plan.users} users, {plan.think:g} s of thought, {workload.seconds:.4g} s"
    if workload.trace is not None:
        return f"a trace of {len(workload.trace)} requests over {duration(workload):.1f} s"
    fields = msgspec.to_builtins(workload.arrivals)
    kind = fields.pop("kind")
    return f"{kind} arrivals ({_listed(fields)}), {workload.seconds:.4g} s"


def _listed(fields: dict[str, object]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in fields.items())


def _number(value: object) -> str:
    if isinstance(value, list):
        return "/".join(_number(each) for each in value)
    return f"{value:.4g}"
