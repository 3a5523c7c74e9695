"""Outcomes as a run would leave them, made up."""

import random
from typing import Any

from loadgen.outcomes.outcome import Outcome, RequestTemplate, Sample, Shot, Status


def shot(
    number: int = 0, at: float = 0.0, tenant: str = "anna", template: str = "small", **request: Any
) -> Shot:
    return Shot(number, at, tenant, template, RequestTemplate(**request))


def outcome(
    at: float = 0.0,
    latency: float = 1.0,
    status: Status = "done",
    late: float = 0.0,
    **planned: Any,
) -> Outcome:
    """One image of 1000 bytes if it is done."""
    planned_shot = shot(at=at, **planned)
    done = status == "done"
    return Outcome(
        shot=planned_shot,
        sent_at=at + late,
        ended_at=at + latency,
        status=status,
        failure=None if done else f"{status}_by_test",
        images=int(done),
        bytes=1000 * done,
    )


def busy_run(requests: int = 600, seconds: float = 60.0, seed: int = 1) -> list[Outcome]:
    """Two classes, three tenants, two templates, a slow spell in the middle, some failures."""
    draw = random.Random(seed)
    found = []
    for number in range(requests):
        at = draw.uniform(0.0, seconds)
        slow = 3.0 if 0.4 < at / seconds < 0.6 else 1.0
        batch = draw.random() < 0.3
        failed = draw.random() < 0.03 * slow
        found.append(
            outcome(
                number=number,
                at=at,
                latency=slow * draw.lognormvariate(0.3 if batch else 0.0, 0.4),
                late=draw.expovariate(1000.0),
                status=draw.choice(("failed", "rejected", "timeout")) if failed else "done",
                tenant=draw.choice(("anna", "bert", "carla")),
                template="large" if batch else "small",
                service_class="batch" if batch else "interactive",
            )
        )
    return sorted(found, key=lambda one: one.ended_at)


def samples(outcomes: list[Outcome], seconds: int = 60) -> list[Sample]:
    """Once per second; what is in flight beyond eight waits."""
    found = []
    for at in range(1, seconds + 1):
        in_flight = sum(one.sent_at <= at < one.ended_at for one in outcomes)
        rows = min(in_flight, 8)
        found.append(Sample(float(at), max(0, in_flight - 8), in_flight, float(rows) or None))
    return found
