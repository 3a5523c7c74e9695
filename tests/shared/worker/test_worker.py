"""The order of a worker's deeds, and what becomes of a node in every bad case. On the fake bus."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from shared import subjects
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.config import Settings
from shared.errors import ArenaFull, HandedOver, HandleLost, InvalidRequest, MemoryBudgetExceeded
from shared.jobs.advance import MAX_FAILURES, new_record
from shared.jobs.dead import DeadLetter
from shared.jobs.events import CancelRequested, Claimed, InputsLost, NodeFailed, NodeFinished
from shared.jobs.graph import workflow
from shared.jobs.record_store import RecordStore
from shared.messages import (
    CancelRequest,
    Failure,
    JobCancelled,
    JobFailed,
    NodeTask,
    Outcome,
    decode,
    decode_outcome,
    encode,
)
from shared.messages.handle import TensorHandle
from shared.services import NodeKind
from shared.telemetry.metrics import Metrics
from shared.worker.context import Context
from shared.worker.memory_budget import MemoryBudget
from shared.worker.pull import Work
from shared.worker.task import Handler, Task
from shared.worker.worker import Worker
from tests.conftest import eventually, run
from tests.helpers.factories import spec
from tests.helpers.memory_transport import MemoryTransport
from tests.loadgen.virtual_time import run_virtually

SETTINGS = Settings(ack_wait=0.5, poll_seconds=0.1)
Run = Callable[[Task], Awaitable[dict[str, TensorHandle]]]


class Noting(MemoryTransport):
    """Keeps what was freed."""

    def __init__(self) -> None:
        super().__init__()
        self.freed: list[TensorHandle] = []

    def free(self, handle: TensorHandle) -> bool:
        self.freed.append(handle)
        return super().free(handle)


class StubHandler(Handler):
    """A handler of `kind` whose work is `do`."""

    models: tuple[str, ...] = ("pocket-sdxl",)
    capacity = 4

    def __init__(self, kind: NodeKind, do: Run) -> None:
        self.kind = kind
        self.do = do
        self.transport = Noting()

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        return await self.do(task)


def put(handler: StubHandler, task: Task) -> dict[str, TensorHandle]:
    handle = handler.transport.put(
        b"x" * 100_000, "uint8", (100_000,), job_id=task.job_id, attempt=1, lifetime=60.0
    )
    return {"tensor": handle}


def put_bytes(transport: MemoryTransport) -> dict[str, TensorHandle]:
    content, size = b"x" * 100_000, (100_000,)
    return {
        "tensor": transport.put(content, "uint8", size, job_id="job-1", attempt=1, lifetime=60.0)
    }


GONE = Failure(code="handle_lost", message="gone", retryable=True, fields={})


async def new_bus() -> MemoryBus:
    bus = MemoryBroker().connect("test")
    await bus.ensure(TOPOLOGY)
    return bus


async def submit(bus: MemoryBus, **changes: Any) -> None:
    wanted = spec(**changes)
    await RecordStore(bus).open(new_record("job-1", wanted, workflow(wanted), at=1.0))


def worker_of(
    bus: MemoryBus,
    handler: StubHandler,
    settings: Settings = SETTINGS,
    name: str = "worker-1",
    budget: MemoryBudget | None = None,
) -> Worker:
    context = Context(name, settings, Metrics("test"), bus, budget or MemoryBudget(0))
    return Worker(context, handler, handler.transport, on_stall=lambda subject: None)


@asynccontextmanager
async def working(
    bus: MemoryBus, handler: StubHandler, settings: Settings = SETTINGS
) -> AsyncIterator[Worker]:
    worker = worker_of(bus, handler, settings)
    stop, ready = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop, ready.set))
        await ready.wait()
        try:
            yield worker
        finally:
            stop.set()


async def outcome(bus: MemoryBus) -> Outcome:
    async def ended() -> bool:
        return await bus.stored(subjects.result("job-1")) is not None

    await eventually(ended)
    data = await bus.stored(subjects.result("job-1"))
    assert data is not None
    return decode_outcome(data)


def test_a_finished_node_advances_the_record_and_publishes_the_next() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def do(task: Task) -> dict[str, TensorHandle]:
            return put(handler, task)

        handler = StubHandler("encode", do)
        await submit(bus)
        async with working(bus, handler):
            await eventually(lambda: _waits(bus, "denoise"))
            revisioned = await RecordStore(bus).load("job-1")
            assert revisioned.record.nodes["encode"].status == "done"
            assert revisioned.record.nodes["encode"].worker == "worker-1"
            await eventually(lambda: _none_waits(bus, "encode"))
        assert handler.transport.freed == []

    run_virtually(scenario())


def test_a_crash_between_writing_and_publishing_is_mended_by_redelivery() -> None:
    """The record says done, but the next node was never published: a second delivery does it."""

    async def scenario() -> None:
        bus = await new_bus()
        await submit(bus)
        records = RecordStore(bus)
        revisioned = await records.load("job-1")
        finished = NodeFinished("encode", 1, {}, "crashed", 1.0, 2.0)
        await records.advance(revisioned, finished)
        await bus.remove(subjects.WORK, _work("denoise", "denoise-0"))

        async def never(task: Task) -> dict[str, TensorHandle]:
            raise AssertionError("a node that is done must not run again")

        async with working(bus, StubHandler("encode", never)):
            await eventually(lambda: _waits(bus, "denoise"))
            await eventually(lambda: _none_waits(bus, "encode"))

    run_virtually(scenario())


def test_a_result_that_comes_too_late_is_discarded_and_its_slots_freed() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        records = RecordStore(bus)

        async def overtaken(task: Task) -> dict[str, TensorHandle]:
            revisioned = await records.load("job-1")
            await records.advance(revisioned, NodeFinished("encode", 1, {}, "faster", 1.0, 2.0))
            return put(handler, task)

        handler = StubHandler("encode", overtaken)
        await submit(bus)
        async with working(bus, handler):
            await eventually(lambda: _none_waits(bus, "encode"))
        revisioned = await records.load("job-1")
        assert revisioned.record.nodes["encode"].worker == "faster"
        assert len(handler.transport.freed) == 1

    run_virtually(scenario())


def test_a_node_that_keeps_failing_ends_its_job_by_name() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        attempts: list[int] = []

        async def fails(task: Task) -> dict[str, TensorHandle]:
            attempts.append(task.state.attempt)
            raise RuntimeError("out of luck")

        await submit(bus)
        async with working(bus, StubHandler("encode", fails)):
            ended = await outcome(bus)
        assert isinstance(ended, JobFailed)
        assert "out of luck" in ended.failure.message
        assert attempts == list(range(1, MAX_FAILURES + 1))

    run_virtually(scenario())


def test_an_error_that_no_retry_can_mend_ends_the_job_at_the_first_attempt() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        attempts: list[int] = []

        async def fails(task: Task) -> dict[str, TensorHandle]:
            attempts.append(task.state.attempt)
            raise InvalidRequest("prompt", "x", "something else")

        await submit(bus)
        async with working(bus, StubHandler("encode", fails)):
            ended = await outcome(bus)
        assert isinstance(ended, JobFailed)
        assert (ended.failure.code, attempts) == ("invalid_request", [1])

    run_virtually(scenario())


def test_a_full_arena_delays_a_node_and_does_not_count_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.worker.worker.CAPACITY_RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        bus = await new_bus()
        full = 2 * MAX_FAILURES

        async def do(task: Task) -> dict[str, TensorHandle]:
            nonlocal full
            if full:
                full -= 1
                raise ArenaFull("arena-1", 1, 5, 5)
            return put(handler, task)

        handler = StubHandler("encode", do)
        await submit(bus)
        async with working(bus, handler):
            await eventually(lambda: _waits(bus, "denoise"))
        revisioned = await RecordStore(bus).load("job-1")
        assert revisioned.record.nodes["encode"].attempt == 1

    run_virtually(scenario())


def test_a_node_that_no_arena_could_hold_fails_its_job_instead_of_waiting_for_ever() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def do(task: Task) -> dict[str, TensorHandle]:
            raise ArenaFull("arena-1", 10, 0, 5)

        await submit(bus)
        async with working(bus, StubHandler("encode", do)):
            ended = await outcome(bus)
        assert isinstance(ended, JobFailed)
        assert ended.failure.code == "arena_full"
        assert "DARKROOM_ARENA_BYTES" in ended.failure.message

    run(scenario())


def test_a_worker_whose_memory_budget_could_never_be_met_does_not_begin() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        ready = asyncio.Event()
        budget = MemoryBudget(1000, resident=lambda: 1000)
        handler = StubHandler("encode", _unused)
        worker = worker_of(bus, handler, name="encoder-1", budget=budget)
        with pytest.raises(MemoryBudgetExceeded, match="encoder-1 with pocket-sdxl"):
            await worker.run(asyncio.Event(), ready.set)
        assert not ready.is_set()

    run(scenario())


def test_a_worker_over_its_budget_says_so_and_takes_nothing() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        used = 0
        budget = MemoryBudget(1000, resident=lambda: used)
        handler = StubHandler("encode", _unused)
        worker = worker_of(bus, handler, name="encoder-1", budget=budget)
        stop, ready = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop, ready.set))
            await ready.wait()
            assert worker.refusal() is None
            used = 2000
            await eventually(lambda: _refuses(worker))
            await submit(bus)
            stop.set()
        assert await _waits(bus, "encode")

    run(scenario())


async def _unused(task: Task) -> dict[str, TensorHandle]:
    raise AssertionError("nothing may be taken")


async def _refuses(worker: Worker) -> bool:
    refusal = worker.refusal()
    return refusal is not None and refusal.lasting and "DARKROOM_MEMORY_BUDGET" in refusal.reason


def test_a_job_that_was_given_up_is_kept_with_its_causes() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def fails(task: Task) -> dict[str, TensorHandle]:
            raise RuntimeError("out of luck")

        await submit(bus)
        async with working(bus, StubHandler("encode", fails)):
            await outcome(bus)
        stored = await bus.stored(subjects.dead("job-1"))
        assert stored is not None
        letter = decode(stored, DeadLetter)
        assert letter.record is not None
        assert letter.failure.message == "RuntimeError: out of luck"
        causes = letter.record.nodes["encode"].causes
        assert [cause.message for cause in causes] == ["RuntimeError: out of luck"] * MAX_FAILURES

    run_virtually(scenario())


def test_a_job_whose_deadline_passes_while_it_runs_fails_by_name() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def long(task: Task) -> dict[str, TensorHandle]:
            await asyncio.Event().wait()
            return {}

        await submit(bus, deadline=time.time() + 0.2)
        async with working(bus, StubHandler("encode", long)):
            ended = await outcome(bus)
        assert isinstance(ended, JobFailed)
        assert ended.failure.code == "deadline_exceeded"
        assert await bus.stored(subjects.dead("job-1")) is None

    run_virtually(scenario())


def test_a_lost_input_runs_its_producer_again_and_not_the_job_into_failure() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        lost = True

        async def encode_prompt(task: Task) -> dict[str, TensorHandle]:
            return put(encoder, task)

        async def denoise(task: Task) -> dict[str, TensorHandle]:
            nonlocal lost
            if lost:
                lost = False
                raise HandleLost(task.inputs("texts")["tensor"].name, "its owner is gone")
            return {}

        encoder = StubHandler("encode", encode_prompt)
        await submit(bus)
        async with working(bus, encoder), working(bus, StubHandler("denoise", denoise)):
            await eventually(lambda: _waits(bus, "decode"))
        revisioned = await RecordStore(bus).load("job-1")
        assert revisioned.record.nodes["encode"].attempt == 2
        assert revisioned.record.nodes["denoise-0"].attempt == 2

    run_virtually(scenario())


def test_a_cancelled_job_stops_its_running_node_and_ends_cancelled() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        started, stopped = asyncio.Event(), asyncio.Event()

        async def long(task: Task) -> dict[str, TensorHandle]:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return {}

        await submit(bus)
        async with working(bus, StubHandler("encode", long)):
            await started.wait()
            await bus.publish(subjects.cancel("job-1"), encode(CancelRequest(job_id="job-1")))
            await stopped.wait()
            assert isinstance(await outcome(bus), JobCancelled)
            await eventually(lambda: _none_waits(bus, "encode"))

    run_virtually(scenario())


def test_a_node_of_an_ended_job_is_dropped_unrun() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        await submit(bus)
        records = RecordStore(bus)
        await records.advance(await records.load("job-1"), CancelRequested(2.0))

        async def never(task: Task) -> dict[str, TensorHandle]:
            raise AssertionError("the job has ended")

        async with working(bus, StubHandler("encode", never)):
            await eventually(lambda: _none_waits(bus, "encode"))

    run_virtually(scenario())


def test_an_expired_job_fails_by_name_without_starting() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def never(task: Task) -> dict[str, TensorHandle]:
            raise AssertionError("the job has expired")

        await submit(bus, deadline=1.0)
        async with working(bus, StubHandler("encode", never)):
            ended = await outcome(bus)
        assert isinstance(ended, JobFailed)
        assert ended.failure.code == "deadline_exceeded"

    run_virtually(scenario())


def test_malformed_work_is_dropped_and_harms_nobody() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def do(task: Task) -> dict[str, TensorHandle]:
            return {}

        subject = subjects.work("encode", "pocket-sdxl", "standard", "job-0", "encode", 1)
        await bus.store(subject, b"\xc1 not a message")
        unknown = NodeTask(job_id="job-9", node="encode", attempt=1)
        subject = subjects.work("encode", "pocket-sdxl", "standard", "job-9", "encode", 1)
        await bus.store(subject, encode(unknown))
        await submit(bus)
        async with working(bus, StubHandler("encode", do)):
            await eventually(lambda: _waits(bus, "denoise"))
            await eventually(lambda: _none_waits(bus, "encode"))

    run_virtually(scenario())


def test_a_leaving_process_hands_its_unfinished_node_back_at_once() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        started = asyncio.Event()

        async def hangs(task: Task) -> dict[str, TensorHandle]:
            started.set()
            await asyncio.Event().wait()
            return {}

        async def works(task: Task) -> dict[str, TensorHandle]:
            return {}

        await submit(bus)
        handler = StubHandler("encode", hangs)
        settings = msgspec.structs.replace(SETTINGS, drain_seconds=0.0)
        leaving = worker_of(bus, handler, settings, name="leaving")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(leaving.run(stop))
            await started.wait()
            stop.set()
        async with working(bus, StubHandler("encode", works)):
            await eventually(lambda: _waits(bus, "denoise"))

    run_virtually(scenario())


def test_a_model_is_taken_in_and_let_go_while_the_worker_runs() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        started, let_go = asyncio.Event(), asyncio.Event()

        class Handing(StubHandler):
            models: tuple[str, ...] = ()

            async def let_go(self, model: str) -> None:
                assert model == "pocket-sdxl"
                let_go.set()

        async def do(task: Task) -> dict[str, TensorHandle]:
            started.set()
            await let_go.wait()
            raise HandedOver(task.job_id, task.node.name)

        await submit(bus)
        handler = Handing("encode", do)
        async with working(bus, handler) as worker:
            handler.models = ("pocket-sdxl",)
            await worker.add("pocket-sdxl")
            await started.wait()
            await worker.remove("pocket-sdxl")
            assert worker.statistics().in_flight == 0
            state = (await RecordStore(bus).load("job-1")).record.nodes["encode"]
            assert (state.status, state.losses) == ("ready", 0)
            await eventually(lambda: _waits(bus, "encode"))

            async def works(task: Task) -> dict[str, TensorHandle]:
                return {}

            handler.do = works
            await worker.add("pocket-sdxl")
            await eventually(lambda: _waits(bus, "denoise"))

    run_virtually(scenario())


def _work(kind: str, node: str) -> str:
    return subjects.work(kind, "pocket-sdxl", "standard", "job-1", node, 1)


async def _waits(bus: MemoryBus, kind: str) -> bool:
    return await bus.depth(subjects.WORK, subjects.work_queue(kind, "pocket-sdxl")) > 0


async def _none_waits(bus: MemoryBus, kind: str) -> bool:
    return await bus.depth(subjects.WORK, subjects.work_queue(kind, "pocket-sdxl")) == 0


async def vanish(bus: MemoryBus) -> None:
    """Take the encode node as a process would that dies with it, like one before it did."""
    revisioned = await RecordStore(bus).load("job-1")
    await RecordStore(bus).advance(revisioned, Claimed("encode", 1, 1, 1.0, "a ghost"))
    name = subjects.work_consumer("encode", "pocket-sdxl", "standard")
    queue = subjects.work_filter("encode", "pocket-sdxl", "standard")
    consumer = await bus.consumer(subjects.WORK, name, queue, SETTINGS.ack_wait)
    assert len(await consumer.fetch(1, 5.0)) == 1


@pytest.mark.parametrize("job_id", ["dr.v1.>", "x" * 100_000, "somebody-else"])
def test_a_task_that_is_not_what_its_subject_says_is_dropped(job_id: str) -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def never(task: Task) -> dict[str, TensorHandle]:
            raise AssertionError("this is no task")

        subject = subjects.work("encode", "pocket-sdxl", "standard", "job-1", "encode", 1)
        await bus.store(subject, encode(NodeTask(job_id=job_id, node="encode", attempt=1)))
        async with working(bus, StubHandler("encode", never)):
            await eventually(lambda: _none_waits(bus, "encode"))

    run_virtually(scenario())


def test_what_a_vanished_holder_had_is_claimed_and_run_alone() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        seen: list[tuple[bool, int, bool]] = []

        async def do(task: Task) -> dict[str, TensorHandle]:
            revisioned = await RecordStore(bus).load("job-1")
            seen.append((task.suspect, task.state.lease, revisioned.record.nodes["encode"].alone))
            return put(handler, task)

        handler = StubHandler("encode", do)
        await submit(bus)
        await vanish(bus)
        async with working(bus, handler):
            await eventually(lambda: _waits(bus, "denoise"))
        assert seen == [(True, 3, True)]

    run_virtually(scenario())


def test_a_suspect_runs_when_the_others_have_finished_and_they_wait_for_it() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        together: set[str] = set()
        company: dict[str, set[str]] = {}

        async def do(task: Task) -> dict[str, TensorHandle]:
            together.add(task.job_id)
            for _ in range(20):
                company.setdefault(task.job_id, set()).update(together)
                await asyncio.sleep(0.002)
            together.discard(task.job_id)
            return put(handler, task)

        handler = StubHandler("encode", do)
        await submit(bus)
        await vanish(bus)
        async with working(bus, handler):
            for number in range(40):  # so that some run when the suspect comes back
                other = spec(seed=number)
                job = new_record(f"other-{number}", other, workflow(other), at=1.0)
                await RecordStore(bus).open(job)
                await asyncio.sleep(0.02)
            await eventually(lambda: _none_waits(bus, "encode"))
        assert company["job-1"] == {"job-1"}
        assert all("job-1" not in others for job, others in company.items() if job != "job-1")

    run_virtually(scenario())


def test_a_suspect_that_has_expired_fails_by_name_and_never_starts() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def never(task: Task) -> dict[str, TensorHandle]:
            raise AssertionError("nobody waits for it any more")

        await submit(bus, deadline=time.time())
        await vanish(bus)
        async with working(bus, StubHandler("encode", never)):
            ended = await outcome(bus)
        assert isinstance(ended, JobFailed)
        assert ended.failure.code == "deadline_exceeded"

    run_virtually(scenario())


def test_who_loses_a_claim_to_another_does_not_run_the_node() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        ran = 0

        async def do(task: Task) -> dict[str, TensorHandle]:
            nonlocal ran
            ran += 1
            return put(handler, task)

        handler = StubHandler("encode", do)
        await submit(bus)
        revisioned = await RecordStore(bus).load("job-1")
        worker = worker_of(bus, handler)
        delivery = Noted(deliveries=2)
        work = Work(delivery)  # type: ignore[arg-type]  # all that a task does to one is noted
        late = Task(
            revisioned, revisioned.record.nodes["encode"], work, RecordStore(bus), handler.transport
        )
        await RecordStore(bus).advance(
            await RecordStore(bus).load("job-1"), Claimed("encode", 1, 1, 1.0, "another")
        )
        await worker._run_wanted(late, work)
        assert (ran, delivery.retried) == (0, [])

    run_virtually(scenario())


def test_who_lost_its_lease_changes_nothing_and_acknowledges_nothing() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        held, wake = asyncio.Event(), asyncio.Event()

        async def stopped(task: Task) -> dict[str, TensorHandle]:
            held.set()
            await wake.wait()
            return put(sleeper, task)

        async def stuck(task: Task) -> dict[str, TensorHandle]:
            claimed.set()
            await asyncio.Event().wait()
            return {}

        claimed = asyncio.Event()
        sleeper, taker = StubHandler("encode", stopped), StubHandler("encode", stuck)
        sleeper.capacity = 1  # it shall not take its own work again
        await submit(bus)
        hung = msgspec.structs.replace(SETTINGS, stall_seconds=0.0, ack_wait=0.3)
        patient = msgspec.structs.replace(SETTINGS, drain_seconds=0.0)
        async with working(bus, sleeper, hung):
            await held.wait()
            async with working(bus, taker, patient):
                await claimed.wait()
                wake.set()
                await eventually(lambda: _true(len(sleeper.transport.freed) == 1))
                revisioned = await RecordStore(bus).load("job-1")
                state = revisioned.record.nodes["encode"]
                assert (state.status, state.lease) == ("ready", 2)
                assert await bus.depth(subjects.WORK, subjects.ALL_WORK) == 1

    run_virtually(scenario())


def test_what_is_handed_over_goes_on_elsewhere_without_suspicion() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def leaves(task: Task) -> dict[str, TensorHandle]:
            raise HandedOver(task.job_id, task.node.name)

        await submit(bus)
        async with working(bus, StubHandler("encode", leaves)):
            await eventually(lambda: _lease(bus, at_least=2))
        revisioned = await RecordStore(bus).load("job-1")
        assert revisioned.record.nodes["encode"].losses == 0
        assert revisioned.record.nodes["encode"].attempt == 1

    run(scenario())  # no time passes while it is given back and taken again


def test_a_node_whose_input_is_being_made_again_waits_for_it() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        records = RecordStore(bus)
        wanted = spec(n=2)
        revisioned = await records.open(new_record("job-1", wanted, workflow(wanted), at=1.0))
        outputs = put_bytes(MemoryTransport())
        await records.advance(revisioned, NodeFinished("encode", 1, outputs, "w", 1.0, 2.0))
        lost = InputsLost("denoise-0", 1, outputs["tensor"].name, GONE, 3.0)
        await records.advance(revisioned, lost)

        async def never(task: Task) -> dict[str, TensorHandle]:
            raise AssertionError("its input is not there")

        async with working(bus, StubHandler("denoise", never)):
            await eventually(lambda: _none_waits(bus, "denoise"))
        state = (await records.load("job-1")).record.nodes["denoise-1"]
        assert (state.status, [cause.code for cause in state.causes]) == (
            "waiting",
            ["handle_lost"],
        )
        revisioned = await records.load("job-1")
        await records.advance(revisioned, NodeFinished("encode", 2, outputs, "w", 4.0, 5.0))
        assert {revisioned.record.nodes[f"denoise-{i}"].status for i in range(2)} == {"ready"}

    run_virtually(scenario())


@dataclass(eq=False)
class Noted:
    """A delivery that notes what is done to it."""

    deliveries: int = 1
    retried: list[float] = field(default_factory=list)

    async def retry(self, delay: float) -> None:
        self.retried.append(delay)


async def task_of(bus: MemoryBus, delivery: Noted) -> Task:
    records = RecordStore(bus)
    revisioned = await records.load("job-1")
    work = Work(delivery)  # type: ignore[arg-type]  # all that a task does to one is noted
    return Task(revisioned, revisioned.record.nodes["encode"], work, records, MemoryTransport())


def test_who_lost_its_lease_cannot_give_the_work_of_its_successor_back() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        await submit(bus)
        first, second = Noted(), Noted(deliveries=2)
        stopped, successor = await task_of(bus, first), await task_of(bus, second)
        assert await successor.alone()
        await stopped.give_back()
        assert first.retried == []
        await successor.give_back(1.0)
        assert second.retried == [1.0]

    run_virtually(scenario())


def test_who_gives_back_what_it_never_claimed_does_not_hide_that_its_holder_vanished() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        await submit(bus)
        await (await task_of(bus, Noted(deliveries=2))).give_back()
        later = await task_of(bus, Noted(deliveries=3))
        assert await later.alone()
        assert (later.state.losses, later.state.alone) == (1, True)

    run_virtually(scenario())


def test_a_letter_that_was_dropped_does_not_come_back() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        await submit(bus)
        records = RecordStore(bus)
        revisioned = await records.load("job-1")
        final = msgspec.structs.replace(GONE, retryable=False)
        await records.advance(revisioned, NodeFailed("encode", 1, final, 2.0))
        assert await bus.stored(subjects.dead("job-1")) is not None
        await bus.remove(subjects.DEAD, subjects.dead("job-1"))
        await records.publish_outstanding(revisioned)
        assert await bus.stored(subjects.dead("job-1")) is None

    run_virtually(scenario())


async def _lease(bus: MemoryBus, at_least: int) -> bool:
    revisioned = await RecordStore(bus).load("job-1")
    return revisioned.record.nodes["encode"].lease >= at_least


async def _true(value: bool) -> bool:
    return value
