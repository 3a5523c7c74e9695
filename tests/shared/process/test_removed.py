"""Jobs of a model that was removed end by that, and another model of its name has its own."""

import asyncio

from shared import subjects
from shared.bus.memory import MemoryBroker
from shared.bus.topology import TOPOLOGY
from shared.config import Settings
from shared.jobs.advance import new_record
from shared.jobs.graph import workflow
from shared.jobs.record_store import RecordStore
from shared.messages import JobFailed, decode_outcome
from shared.process.removed import REFUSING_SECONDS, RefusedQueues, RemovedModels
from shared.telemetry.metrics import Metrics
from shared.worker.context import Context
from shared.worker.worker import Worker
from tests.conftest import eventually
from tests.helpers.factories import spec
from tests.helpers.memory_transport import MemoryTransport
from tests.loadgen.virtual_time import run_virtually

MODEL = "pocket-sdxl"


def test_what_waits_of_a_removed_model_ends_by_name_for_a_minute() -> None:
    async def scenario() -> None:
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        records, gone = RecordStore(bus), [MODEL]
        context = Context("vae-1", Settings(poll_seconds=0.1), Metrics("vae"), bus)
        worker = Worker(context, RemovedModels("encode"), MemoryTransport())
        refused = RefusedQueues(lambda: gone, [worker])

        async def submit(job_id: str) -> None:
            wanted = spec(job_id=job_id)
            await records.open(new_record(job_id, wanted, workflow(wanted), at=1.0))

        async def ended(job_id: str) -> bool:
            return await bus.stored(subjects.result(job_id)) is not None

        await submit("job-1")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            running = group.create_task(refused.run())
            await eventually(lambda: ended("job-1"))
            data = await bus.stored(subjects.result("job-1"))
            assert data is not None
            outcome = decode_outcome(data)
            assert isinstance(outcome, JobFailed)
            assert outcome.failure.code == "model_removed"
            assert "the model pocket-sdxl was removed" in outcome.failure.message
            assert await bus.stored(subjects.dead("job-1")) is None  # nothing is to be learnt

            gone.clear()  # it is served again
            await refused.look()
            await submit("job-2")
            await asyncio.sleep(2.0)
            assert not await ended("job-2")

            gone.append(MODEL)
            await refused.look()
            await eventually(lambda: ended("job-2"))
            await asyncio.sleep(2 * REFUSING_SECONDS)
            await submit("job-3")
            await asyncio.sleep(5.0)
            assert not await ended("job-3")
            assert repr(refused) == "<RefusedQueues of none>"
            stop.set()
            running.cancel()

    run_virtually(scenario())
