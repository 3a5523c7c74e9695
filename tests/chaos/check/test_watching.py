"""What a watch has missed, it asks for; what is gone, it counts."""

import asyncio
from pathlib import Path

from shared import subjects
from shared.bus.embedded import nats_server
from shared.bus.nats import api, connect
from shared.bus.topology import TOPOLOGY
from tests.chaos.check.watching import StreamWatch
from tests.conftest import eventually, run


def test_a_revision_that_was_sent_and_never_came_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path) as server:
            bus = await connect(server.url, "test")
            await bus.ensure(TOPOLOGY)
            watch = StreamWatch(bus, api.bucket_stream(subjects.RECORDS))
            watching = asyncio.create_task(watch.run())
            await eventually(watch.caught_up)
            revision = await bus.create(subjects.RECORDS, "replaced", b"1")
            await eventually(watch.caught_up)
            await bus.update(subjects.RECORDS, "replaced", b"2", revision)
            for key in ("kept", "last"):
                await bus.create(subjects.RECORDS, key, key.encode())
            await eventually(watch.caught_up)
            seen = dict(watch.messages)
            assert [stored.data for stored in watch.ordered()] == [b"1", b"2", b"kept", b"last"]

            first, _, kept, _ = sorted(watch.messages)
            del watch.messages[first], watch.messages[kept]
            assert watch.unseen == 2
            assert await watch.caught_up()
            assert watch.messages == {n: stored for n, stored in seen.items() if n != first}
            assert watch.unseen == 1
            watching.cancel()
            await bus.close()

    run(scenario())
