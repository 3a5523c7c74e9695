"""A cluster whose times can be reckoned by hand."""

from typing import Any

import msgspec

from loadgen.outcomes.outcome import RequestTemplate, Shot
from loadgen.simulator.profiles.cost import Linear
from loadgen.simulator.profiles.profile import Component, Overheads, Profile, Workflow

ENCODE, DECODE = 0.5, 0.25
FIXED, EACH = 0.1, 0.1
"""Of a step, and of each picture in it."""
STEPS = 10
JOB, NODE = 0.01, 0.02
STEP = FIXED + EACH
SOLO = JOB + ENCODE + NODE + STEPS * STEP + NODE + DECODE


def small_profile(encode: float = ENCODE, **changes: Any) -> Profile:
    """One workflow, `plain`, and one with a ControlNet, `steered`."""
    one = {
        "text": Component(
            kind="encode", cost=Linear(fixed=encode, per_unit=0.0), bytes=20, load_seconds=2.0
        ),
        "network": Component(
            kind="denoise", cost=Linear(fixed=FIXED, per_unit=EACH), bytes=50, load_seconds=5.0
        ),
        "control": Component(
            kind="controlnet", cost=Linear(fixed=0.0, per_unit=0.15), bytes=10, load_seconds=1.0
        ),
        "pixels": Component(
            kind="decode", cost=Linear(fixed=0.0, per_unit=DECODE), bytes=10, load_seconds=1.0
        ),
    }
    plain = Workflow(encode="text", denoise="network", decode="pixels", steps=STEPS, guided=False)
    steered = msgspec.structs.replace(plain, controls=("control",))
    whole = Profile(
        name="small",
        source="made up",
        components=one,
        workflows={"plain": plain, "steered": steered},
        memory=100,
        overheads=Overheads(job=JOB, node=NODE, step=0.0, ask=0.01),
    )
    return msgspec.structs.replace(whole, **changes)


def shot(number: int = 0, at: float = 0.0, **request: Any) -> Shot:
    wanted = RequestTemplate(**{"model": "plain", **request})
    return Shot(number, at, f"user {number % 3}", str(wanted.model), wanted)
