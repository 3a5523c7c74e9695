"""What the tests of short cases share: a small fleet, and the demand that a case passes."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from shared.messages import GenerationRequest
from tests.chaos.fleet.background import Background
from tests.chaos.fleet.fleets import ChaosFleet
from tests.chaos.report import CaseResult
from tests.chaos.trial import Expected, Trial, is_done, measured, trial_on
from tests.conftest import HANG_SECONDS

SEED: Final = 3
FEW: Final = {"planner": 1, "prompt_encoder": 1, "denoiser": 2, "vae": 1, "gateway": 1}
LEASE: Final = 1.0
FEW_USERS: Final = 5
LIMIT: Final = 2 * HANG_SECONDS
"""Seconds after which a case is broken off."""


def harm(
    background: Background[ChaosFleet],
    body: Callable[[Trial], Awaitable[None]],
    runs: int,
    expected: Expected = is_done,
    wanted: Sequence[GenerationRequest] | None = None,
) -> CaseResult:
    """Let `body` do its harm to the fleet; whatever it broke fails the test."""

    async def case() -> CaseResult:
        async with trial_on(background.value, SEED, wanted, users=FEW_USERS) as trial:
            return await measured(
                body.__name__, trial, body, long=False, wanted_runs=runs, limit=LIMIT,
                expected=expected,
            )  # fmt: skip

    result = background.run(case(), 3 * LIMIT)
    print(result)
    assert result.passed, "\n".join(result.troubles())
    return result
