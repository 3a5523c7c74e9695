"""One row a service: what follows from it, and that it is enough."""

from typing import get_args

import pytest

from services.fleet.access import permissions
from services.fleet.plan import processes
from services.fleet.plan.processes import FleetOptions, parse_replicas, plan_processes
from shared import config, subjects
from shared.bus.patterns import matches
from shared.security.keys import new_seed, public_key
from shared.services import (
    KINDS_OF_MODELS,
    SERVICE_OF,
    SERVICES,
    NodeKind,
    Served,
    ServiceSpec,
    SettingGroup,
    bus_name,
    reading,
)


def test_each_kind_of_node_is_run_by_one_service() -> None:
    kinds = [kind for spec in SERVICES.values() for kind in spec.nodes]
    assert sorted(kinds) == sorted(get_args(NodeKind))
    assert {SERVICE_OF[kind] for kind in kinds} == {n for n, spec in SERVICES.items() if spec.nodes}
    assert set(kinds) - set(KINDS_OF_MODELS) == {"hint"}


def test_each_group_of_settings_is_read_by_somebody() -> None:
    for group in get_args(SettingGroup):
        assert reading(group), group
    assert set(config.EVERY.services) == SERVICES.keys()


def test_a_service_that_runs_nodes_reads_the_settings_of_those_who_work() -> None:
    for name, spec in SERVICES.items():
        assert ("tensors" in spec.reads) is bool(spec.nodes), name
        assert ("work" in spec.reads) is (bool(spec.nodes) or spec.plans), name


def test_a_row_is_all_that_a_fleet_needs_of_a_new_service(monkeypatch: pytest.MonkeyPatch) -> None:
    new = ServiceSpec(
        nodes=("encode",),
        cores="half",
        publishes=lambda served: map(subjects.assist, served.models),
    )
    for module in (permissions, processes):
        monkeypatch.setattr(module, "SERVICES", {**SERVICES, "new_one": new})
    [spec] = [
        spec
        for spec in plan_processes(FleetOptions(models=("some/model",), cores=8), "nats://x:1", {})
        if spec.service == "new_one"
    ]
    assert spec.command[1:] == ("-m", "services.new_one")
    assert spec.environment["DARKROOM_THREADS"] == "4"
    assert parse_replicas(["new_one=2"]) == {"new_one": 2}
    granted = permissions.permissions("new_one", public_key(new_seed()), Served(("m",)))

    def may_publish(subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in granted.publish)

    queue = subjects.work_consumer("encode", "m", "batch")
    assert may_publish(f"$JS.API.CONSUMER.MSG.NEXT.WORK.{queue}")
    assert may_publish(subjects.assist("m"))
    assert not may_publish(subjects.submit("j"))
    shown = f"$SRV.INFO.{bus_name('new_one')}.x"
    assert any(matches(pattern, shown) for pattern in granted.subscribe)


def test_who_is_no_service_is_granted_nothing() -> None:
    with pytest.raises(KeyError):
        permissions.permissions("nobody", public_key(new_seed()), Served(("m",)))
