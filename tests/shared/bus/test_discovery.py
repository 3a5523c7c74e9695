from collections.abc import Sequence
from typing import Any

import pytest

from shared.bus.base import Message, ServiceInfo
from shared.bus.discovery import ready_pids, services
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.errors import BusUnavailable
from tests.conftest import run


def info(name: str, **metadata: str) -> ServiceInfo:
    return ServiceInfo(name=name, version="0.1.0", description="", metadata=metadata)


def test_our_services_are_found_and_others_are_not() -> None:
    async def scenario() -> None:
        bus = MemoryBus(MemoryBroker(), "test")
        vae = info("darkroom-vae", service="vae", pid="12", models="a b")
        gateway = info("darkroom-gateway", service="gateway", pid="7", http="127.0.0.1:80")
        async with (
            bus.service(vae, dict),
            bus.service(gateway, dict),
            bus.service(info("somebody-else", pid="3"), dict),
            bus.service(info("darkroom-odd", pid="not a number"), dict),
        ):
            first, second = await services(bus, within=0.05)
            assert await ready_pids(bus) == {7, 12}
        assert (first.service, first.pid, first.http) == ("gateway", 7, "127.0.0.1:80")
        assert (second.service, second.pid, second.models) == ("vae", 12, ("a", "b"))

    run(scenario())


class _AwayBus(MemoryBus):
    async def gather(self, subject: str, data: bytes, timeout: float) -> Sequence[Message]:
        raise BusUnavailable(subject, "away")


def test_nobody_is_ready_while_the_bus_is_away() -> None:
    assert not run(ready_pids(_AwayBus(MemoryBroker(), "test")))


@pytest.mark.parametrize("data", [b"", b"[]", b'"x"', b"{}", b'{"name": 1}', b'{"name": null}'])
def test_answers_that_make_no_sense_are_ignored(data: bytes) -> None:
    class Babbling(MemoryBus):
        async def gather(self, *_: Any) -> Sequence[Message]:
            return [Message("reply", data, {})]

    assert run(services(Babbling(MemoryBroker(), "test"), within=0.0)) == []
