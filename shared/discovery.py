"""Who is there: every service answers `$SRV.PING`, `INFO` and `STATS` as NATS micro services do."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from shared.bus.base import Bus
from shared.errors import BusUnavailable

NAME_PREFIX: Final = "darkroom-"


@dataclass(frozen=True, slots=True)
class Service:
    """One process that takes work. `models`: the names of those it holds, if it holds any."""

    service: str
    pid: int
    instance: str
    version: str
    models: tuple[str, ...]
    http: str
    """`host:port` of a gateway, empty for others."""
    host: str


async def services(bus: Bus, within: float) -> list[Service]:
    """All that answer within that many seconds, by name and pid."""
    answers = await bus.gather("$SRV.PING", b"", within)
    found = [_service(answer.data) for answer in answers]
    return sorted(
        (service for service in found if service is not None),
        key=lambda service: (service.service, service.pid),
    )


async def ready_pids(bus: Bus) -> Collection[int]:
    """The processes that take work now; none while the bus itself is away."""
    try:
        return {service.pid for service in await services(bus, within=0.1)}
    except BusUnavailable:
        return ()


def _service(data: bytes) -> Service | None:
    """None for services that are not ours."""
    try:
        answer: dict[str, Any] = json.loads(data)
        metadata: dict[str, str] = answer.get("metadata") or {}
        if not answer["name"].startswith(NAME_PREFIX):
            return None
        return Service(
            service=metadata["service"],
            pid=int(metadata["pid"]),
            instance=answer["id"],
            version=answer["version"],
            models=tuple(metadata.get("models", "").split()),
            http=metadata.get("http", ""),
            host=metadata.get("host", ""),
        )
    except (ValueError, KeyError, AttributeError):
        return None
