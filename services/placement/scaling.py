"""How many processes each fleet shall have of its services, by what its processes answer. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shared.bus.discovery import Service
from shared.policy.placement.scale import Limits, scale
from shared.policy.placement.state import Demand, Model, Process
from shared.policy.release.jobs import Component
from shared.services import SERVICE_OF


def wanted_processes(
    found: Sequence[Service],
    processes: Sequence[Process],
    models: Sequence[Model],
    demand: Mapping[Component, Demand],
) -> dict[str, dict[str, int]]:
    """By fleet and service, for the services whose processes the fleet starts and stops.
    `processes`: those of `found`, in that order. Each fleet serves a part of what is asked of a
    service: as much as it may have of all processes that fleets may have."""
    limits = {
        one.fleet: {service: Limits(most, least) for service, (least, most) in one.limits.items()}
        for one in found
        if one.fleet and one.limits
    }
    most = Counter[str]()
    for each in limits.values():
        most.update({service: limit.most for service, limit in each.items()})
    wanted: dict[str, dict[str, int]] = {}
    for fleet, each in limits.items():
        own = [process for one, process in zip(found, processes, strict=True) if one.fleet == fleet]
        shares = {service: limit.most / most[service] for service, limit in each.items()}
        wanted[fleet] = scale(models, own, _shared(demand, shares), each)
    return wanted


def _shared(
    demand: Mapping[Component, Demand], shares: Mapping[str, float]
) -> dict[Component, Demand]:
    """What of `demand` comes to a fleet that has such a share of each service."""
    found = {}
    for component, one in demand.items():
        share = shares.get(SERVICE_OF[component[0]], 0.0)
        found[component] = replace(
            one, rate=one.rate * share, trend=one.trend * share, backlog=one.backlog * share
        )
    return found
