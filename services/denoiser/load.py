"""What a denoiser tells planners of one of its models."""

import time
from math import isinf

from services.denoiser.engine.engine import Engine
from shared.messages import ComponentReport, CostReport, RowReport, WorkReport
from shared.policy.cautious_cost import CautiousCost
from shared.policy.cost_model import CostModel
from shared.policy.deadlines import due, hurried
from shared.policy.reported_load import ends, seconds_in_hand


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
        step_seconds=None if isinf(cost.longest) else cost.longest,
        rows=tuple(
            RowReport(
                job_id=row.job_id,
                steps_left=row.steps_left,
                work=WorkReport(row.work.tokens, row.work.pairs, row.work.loaded, row.work.masked),
                height=row.shape.height,
                width=row.shape.width,
                due=due(row, end, now),
            )
            for row, end in ends(rows, cost)
        ),
    )


def cost_report(cost: CostModel) -> CostReport:
    """At the pace that promises count on."""
    pace, doubt = cost.busy_pace, CautiousCost(cost).doubt
    fixed, per_token, per_pair, per_byte, per_masked = (pace * c for c in cost.coefficients)
    return CostReport(
        fixed=fixed,
        per_token=per_token,
        per_pair=per_pair,
        per_byte=per_byte,
        per_masked=per_masked,
        known=cost.known,
        doubt=doubt,
    )
