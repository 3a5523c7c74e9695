"""What a run asks for, and `schedule`: every request of it, decided before the first is sent.

Pure: the same workload (its seed included) gives the same requests at the same times.
"""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from loadgen.outcomes.outcome import RequestTemplate, Shot
from loadgen.workload.arrivals import Arrivals, Poisson, Seconds, times
from loadgen.workload.masks import USES, MaskUse
from loadgen.workload.trace import Arrival

MAX_SEED: Final = 2**31 - 1
"""Of a drawn image: small enough for every server."""

Weight = Annotated[float, Meta(gt=0)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of request, and how often it comes relative to the others of its mix.

    `masks`: draw each request's mask ratio from the production distribution of this use."""

    name: Annotated[str, Meta(min_length=1)] = "default"
    weight: Weight = 1.0
    request: RequestTemplate = RequestTemplate()
    masks: MaskUse | None = None


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`trace`, if there is one, says when and who instead of `arrivals`, `seconds` and `tenants`.
    Requests without a seed of their own get one drawn from the workload's."""

    arrivals: Arrivals = Poisson(rate=1.0)
    seconds: Seconds = 60.0
    mix: Annotated[tuple[Entry, ...], Meta(min_length=1)] = (Entry(),)
    tenants: Annotated[dict[str, Weight], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: {"default": 1.0}
    )
    seed: int = 0
    trace: tuple[Arrival, ...] | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for entries that reports could not tell apart."""
        names = [entry.name for entry in self.mix]
        if len(set(names)) < len(names):
            raise ValueError(f"a mix whose entries have different names, not {', '.join(names)}")


def schedule(workload: Workload) -> tuple[Shot, ...]:
    """All requests in the order of their send times."""
    pick = requests(workload, "schedule")
    if workload.trace is not None:
        ordered = sorted(workload.trace, key=lambda arrival: arrival.at)
        return tuple(_traced(n, arrival, next(pick)) for n, arrival in enumerate(ordered))
    instants = times(workload.arrivals, workload.seconds, Random(f"{workload.seed}/arrivals"))
    return tuple(Shot(number, at, *next(pick)) for number, at in enumerate(instants))


def one_of_each(workload: Workload) -> tuple[Shot, ...]:
    """An example of every entry of the mix, however rare."""
    random, tenant = Random(f"{workload.seed}/examples"), next(iter(workload.tenants))
    return tuple(
        Shot(number, 0.0, tenant, entry.name, _filled(entry, random))
        for number, entry in enumerate(workload.mix)
    )


def duration(workload: Workload) -> float:
    """Seconds in which requests are sent."""
    if workload.trace is not None:
        return max((arrival.at for arrival in workload.trace), default=0.0)
    return workload.seconds


def requests(workload: Workload, stream: str) -> Iterator[tuple[str, str, RequestTemplate]]:
    """Endless (tenant, template's name, request); each `stream` of a workload has its own."""
    random = Random(f"{workload.seed}/{stream}")
    names, tenant_weights = tuple(workload.tenants), tuple(workload.tenants.values())
    weights = [entry.weight for entry in workload.mix]
    while True:
        [tenant] = random.choices(names, tenant_weights)
        [entry] = random.choices(workload.mix, weights)
        yield tenant, entry.name, _filled(entry, random)


def _filled(entry: Entry, random: Random) -> RequestTemplate:
    """Draws the same number of times for every entry, so that changing one entry leaves the
    others' requests as they were."""
    seed, masked = random.randrange(MAX_SEED), Random(random.random())
    changes: dict[str, object] = {}
    if entry.request.seed is None:
        changes["seed"] = seed
    if entry.masks is not None:
        changes["mask_ratio"] = USES[entry.masks](masked)
    return msgspec.structs.replace(entry.request, **changes)


def _traced(number: int, arrival: Arrival, drawn: tuple[str, str, RequestTemplate]) -> Shot:
    """What the trace leaves open comes from the mix. The template's name says what it set, for
    requests of other shapes must not count as the same."""
    _, name, request = drawn
    request = msgspec.structs.replace(request, **arrival.changes)
    kind = kind_of(arrival.changes)
    template = f"{name}: {kind}" if kind else name
    return Shot(number, arrival.at, arrival.tenant, template, request)


def kind_of(fields: Mapping[str, object]) -> str:
    """What tells requests with these `fields` of a template from others, in a few words."""
    words = [
        str(fields.get("model") or ""),
        f"{fields['width']}x{fields['height']}" if "width" in fields else "",
        f"{fields['steps']} steps" if "steps" in fields else "",
        f"guidance {fields['guidance']:g}" if "guidance" in fields else "",
        f"{fields['n']} images" if "n" in fields else "",
        str(fields.get("service_class") or ""),
    ]
    for name in ("controls", "loras"):
        chosen = fields.get(name)
        if isinstance(chosen, tuple):
            words.append(f"{name} {'+'.join(chosen)}")
    return ", ".join(word for word in words if word)
