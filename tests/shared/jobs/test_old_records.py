"""Records that an older version left in the bucket."""

from pathlib import Path
from typing import Final

import pytest

from shared import subjects
from shared.bus.memory import MemoryBroker
from shared.bus.topology import TOPOLOGY
from shared.errors import Outdated
from shared.jobs.events import NodeFailed
from shared.jobs.record import JobRecord
from shared.jobs.record_store import RecordStore
from shared.messages import JobFailed, decode, decode_outcome, failure_of
from shared.messages.nodes import Encode
from shared.worker.pull import Work
from shared.worker.task import Task
from tests.conftest import run
from tests.helpers.factories import spec
from tests.helpers.memory_transport import MemoryTransport
from tests.services.denoiser.world import Delivered

OLD: Final = Path(__file__).parent / "data" / "record-without-parameters.msgpack"
"""Of a job of one image that had just been accepted, as it was written when nodes had no parameters
of their own."""


def test_it_is_read_with_what_was_asked_so_that_it_can_be_submitted_again() -> None:
    old = decode(OLD.read_bytes(), JobRecord)
    assert {name: state.node.kind for name, state in old.nodes.items()} == {
        "encode": "encode",
        "denoise-0": "denoise",
        "decode-0": "decode",
    }
    assert old.spec == spec()


def test_whoever_runs_a_node_of_it_ends_the_job_by_name_at_once() -> None:
    async def scenario() -> None:
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        records = RecordStore(bus)
        await bus.create(subjects.RECORDS, "job-1", OLD.read_bytes())
        revisioned = await records.load("job-1")
        await records.publish_outstanding(revisioned)
        transport = MemoryTransport()
        work = Work(Delivered(1))  # type: ignore[arg-type]
        task = Task(revisioned, revisioned.record.nodes["encode"], work, records, transport)
        with pytest.raises(Outdated, match="job job-1 was begun by another version") as caught:
            task.parameters(Encode)
        failure = failure_of(caught.value)
        assert await task.advance(NodeFailed("encode", 1, failure, 6.0, *task.lease))
        outcome = await bus.stored(subjects.result("job-1"))
        assert outcome is not None
        said = decode_outcome(outcome)
        assert isinstance(said, JobFailed)
        assert said.failure.code == "outdated"
        assert await bus.stored(subjects.dead("job-1")) is not None

    run(scenario())
