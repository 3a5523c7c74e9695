"""What the users of all three systems ask for. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec

from loadgen.outcomes.outcome import RequestTemplate, Shot
from loadgen.workload.arrivals import Arrivals
from loadgen.workload.workload import Entry, Workload
from pocket.captions import sample_captions

STEPS: Final = (10, 20, 30, 40)
GUIDANCES: Final = (1.0, 2.0, 4.0)
"""Few values of both, so that request batching finds requests that go together."""


def mix(steps: tuple[int, ...] = STEPS) -> tuple[Entry, ...]:
    """Every combination of steps and guidance, all equally often. No negative prompts, and the
    model's own sampler and size: whatever else differed would only split batches further."""
    pairs = [(count, guidance) for count in steps for guidance in GUIDANCES]
    return tuple(
        Entry(
            name=f"{count} steps, guidance {guidance:g}",
            request=RequestTemplate(prompt=prompt, steps=count, guidance=guidance),
        )
        for (count, guidance), prompt in zip(pairs, sample_captions(len(pairs)), strict=True)
    )


def with_deadlines(entries: tuple[Entry, ...], seconds: Mapping[str, float]) -> tuple[Entry, ...]:
    """`entries` whose requests carry the deadline that `seconds` has for the entry's name."""
    return tuple(
        msgspec.structs.replace(
            entry, request=msgspec.structs.replace(entry.request, deadline=seconds[entry.name])
        )
        for entry in entries
    )


def workload(entries: tuple[Entry, ...], arrivals: Arrivals, seconds: float, seed: int) -> Workload:
    return Workload(arrivals=arrivals, seconds=seconds, mix=entries, seed=seed)


def images_through_network(shot: Shot) -> int:
    """Images that the network sees for one picture: both halves of guidance in every step."""
    return steps_of(shot) * (2 if (shot.request.guidance or 0.0) > 1.0 else 1)


def steps_of(shot: Shot) -> int:
    assert shot.request.steps is not None  # every entry of the mix says how many
    return shot.request.steps
