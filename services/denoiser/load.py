"""What a denoiser tells planners of one of its models."""

import time

from services.denoiser.engine.engine import Engine
from shared.messages import ComponentReport, CostReport, RowReport, WorkReport
from shared.policy.cost_model import CostModel
from shared.policy.deadlines import hurried, overdue
from shared.policy.reported_load import ends, seconds_in_hand
from shared.policy.row_view import RowView


def component(model: str, engine: Engine, tasks: int) -> ComponentReport:
    """`tasks`: nodes in hand; some are no rows yet."""
    cost, limits, now = engine.cost, engine.limits, time.time()
    rows = hurried(engine.rows, cost)
    return ComponentReport(
        kind="denoise",
        model=model,
        cost=cost_report(cost),
        seconds=seconds_in_hand(rows, cost),
        count=max(tasks, len(rows)),
        max_rows=limits.max_rows,
        max_step_seconds=limits.max_step_seconds,
        rows=tuple(
            RowReport(
                job_id=row.job_id,
                steps_left=row.steps_left,
                work=WorkReport(row.work.tokens, row.work.pairs, row.work.loaded, row.work.masked),
                height=row.shape.height,
                width=row.shape.width,
                due=_due(row, end, cost, now),
            )
            for row, end in ends(rows, cost)
        ),
    )


def _due(row: RowView, end: float, cost: CostModel, now: float) -> float | None:
    """When it has to be finished: one that has no deadline, and was passed over for long, when it
    is predicted to be."""
    if row.seconds_left is not None:
        return now + row.seconds_left
    return now + end if overdue(row, cost) else None


def cost_report(cost: CostModel) -> CostReport:
    """At the pace of the last steps."""
    fixed, per_token, per_pair, per_byte, per_masked = (cost.pace * c for c in cost.coefficients)
    return CostReport(
        fixed=fixed,
        per_token=per_token,
        per_pair=per_pair,
        per_byte=per_byte,
        per_masked=per_masked,
        known=cost.known,
        doubt=cost.doubt,
    )
