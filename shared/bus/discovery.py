"""Who is there, and takes work: every service answers `$SRV.PING`, `INFO` and `STATS` as NATS micro
services do."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from shared.bus.base import Bus, Message
from shared.bus.readiness import WARNINGS, Refusal
from shared.bus.service import data_of
from shared.bus.unusable import Unusable, distinct, unusable_in
from shared.config import Settings
from shared.errors import BusUnavailable
from shared.media.sizes import ModelSizes
from shared.messages.components import ComponentState
from shared.services import bus_name

COMPONENTS: Final = "components"
"""Its name among the statistics of a process, as a list."""
PROCESS: Final = "process"
BUDGET: Final = "budget"
"""Names in the metadata of any process, and of one that holds components."""
SIZES: Final = "sizes"
"""Its name in the metadata of a planner."""
FLEET: Final = "fleet"
LIMITS: Final = "limits"
"""Names in the metadata of any process of a fleet that is scaled."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process that answers. `models`: the names of those it holds, if it holds any."""

    service: str
    pid: int
    instance: str
    version: str
    models: tuple[str, ...]
    http: str
    """`host:port` of a gateway, empty for others."""
    host: str
    refusal: Refusal | None
    """Why it takes no work; None: it does."""
    warnings: tuple[str, ...] = ()
    """What it says should be put right, though it works."""
    unusable: tuple[Unusable, ...] = ()
    """What it was to serve and cannot."""
    components: tuple[ComponentState, ...] = ()
    """How what it may hold stands."""
    process: str = ""
    """Its name in load reports and in the bucket of what it shall hold; empty if it is too old to
    say."""
    budget: int = 0
    """Bytes of weights that it may hold; 0: it does not say."""
    fleet: str = ""
    """The name of the fleet that it is of, if that starts and stops processes as placement
    wants."""
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """The fewest and the most processes of that fleet, by service."""
    sizes: Mapping[str, ModelSizes] = field(default_factory=dict)
    """Of a planner: what its models draw, by all names that requests may call them by."""


async def services(bus: Bus, within: float) -> list[Service]:
    """All that answer within that many seconds, by name and pid."""
    answers = await bus.gather("$SRV.STATS", b"", within)
    found = [_service(answer) for answer in answers]
    return sorted(
        (service for service in found if service is not None),
        key=lambda service: (service.service, service.pid),
    )


def refusals(found: Collection[Service], service: str, model: str) -> list[Refusal | None]:
    """Of the processes of `service` that were to serve `model`, why each does not; None: it does.
    Who could not load it will not do so later."""
    holders = [one.refusal for one in found if one.service == service and model in one.models]
    unusable = [
        Refusal(broken.reason, lasting=True)
        for one in found
        if one.service == service
        for broken in one.unusable
        if broken.name == model and model not in one.models
    ]
    return [*holders, *unusable]


def unusable_of(found: Collection[Service]) -> list[Unusable]:
    """What they were to serve and nobody of the same kind does, each once."""
    return distinct(
        broken
        for one in found
        for broken in one.unusable
        if not any(other.service == one.service and broken.name in other.models for other in found)
    )


def sizes_metadata(sizes: Mapping[str, ModelSizes]) -> dict[str, str]:
    """Metadata of a planner, for `Service.sizes`."""
    return {SIZES: msgspec.json.encode(sizes).decode()}


def fleet_metadata(settings: Settings) -> dict[str, str]:
    """Metadata of a process, for `Service.fleet` and `Service.limits`."""
    if not settings.fleet:
        return {}
    return {FLEET: settings.fleet, LIMITS: settings.fleet_limits}


async def model_sizes(bus: Bus, model: str | None, within: float) -> ModelSizes | None:
    """Of what planners call `model`, or of their default; None: none that answers knows it."""
    found = await services(bus, within)
    unusable_models = {one.name for one in unusable_of(found) if one.kind == "model"}
    for one in found:
        usable = [name for name in one.models if name not in unusable_models] or one.models
        wanted = next(iter(usable), "") if model is None else model
        if (sizes := one.sizes.get(wanted)) is not None:
            return sizes
    return None


def components_in(statistics: Mapping[str, object]) -> tuple[ComponentState, ...]:
    """What a process says of its components; nothing if it is too old to."""
    try:
        return msgspec.convert(statistics.get(COMPONENTS, ()), tuple[ComponentState, ...])
    except msgspec.ValidationError:
        return ()


async def ready_pids(bus: Bus) -> Collection[int]:
    """The processes that take work now; none while the bus itself is away."""
    try:
        return {one.pid for one in await services(bus, within=0.1) if one.refusal is None}
    except BusUnavailable:
        return ()


def _service(message: Message) -> Service | None:
    """None for services that are not ours."""
    try:
        answer: dict[str, Any] = json.loads(message.data)
        metadata: dict[str, str] = answer.get("metadata") or {}
        if not answer["name"].startswith(bus_name("")):
            return None
        data = data_of(message)
        warnings = data.get(WARNINGS)
        return Service(
            service=metadata["service"],
            pid=int(metadata["pid"]),
            instance=answer["id"],
            version=answer["version"],
            models=tuple(metadata.get("models", "").split()),
            http=metadata.get("http", ""),
            host=metadata.get("host", ""),
            process=metadata.get(PROCESS, ""),
            budget=int(metadata.get(BUDGET, "0")),
            refusal=Refusal.of(data),
            warnings=tuple(map(str, warnings)) if isinstance(warnings, list) else (),
            unusable=unusable_in(data),
            components=components_in(data),
            fleet=metadata.get(FLEET, ""),
            limits=msgspec.json.decode(metadata.get(LIMITS, "{}"), type=dict[str, tuple[int, int]]),
            sizes=msgspec.json.decode(metadata.get(SIZES, "{}"), type=dict[str, ModelSizes]),
        )
    except (ValueError, KeyError, AttributeError, TypeError, msgspec.MsgspecError):
        return None
