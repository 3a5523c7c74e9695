"""Malformed messages to every subject that services read, among them tasks whose records point at
tensors that are not there or cannot be. Nothing may end, hang, or answer for somebody else."""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final
from zlib import crc32

import msgspec

from shared import subjects
from shared.bus.base import Bus
from shared.errors import DarkroomError, InvalidRequest
from shared.jobs.advance import new_record
from shared.jobs.graph import workflow
from shared.jobs.record import JobRecord
from shared.messages import (
    CancelRequest,
    GenerationRequest,
    JobSpec,
    NodeTask,
    ReleaseJob,
    decode,
    encode,
)
from tests.chaos.check.leaks import arenas_in_use
from tests.chaos.harm.mutation import mutated, odd_value
from tests.chaos.trial import Trial
from tests.conftest import HANG_SECONDS

MODEL: Final = "pocket-sdxl"
AT_ONCE: Final = 16
CANCEL_SECONDS: Final = HANG_SECONDS


def request_of(job_id: str) -> GenerationRequest:
    return GenerationRequest(job_id=job_id, prompt="a large red circle left on white", steps=2)


def spec_of() -> JobSpec:
    return JobSpec(
        prompt="a large red circle left on white", model=MODEL, negative_prompt=None, n=1,
        width=128, height=128, steps=2, guidance=1.0, sampler="euler", seed=1,
        service_class="standard", deadline=None, previews=0, output_format="png",
        output_compression=100, user=None,
    )  # fmt: skip


class Fuzzer:
    """Sends what `chance` says to the services behind `bus`."""

    def __init__(self, bus: Bus, chance: random.Random, arenas: list[str]) -> None:
        self._bus = bus
        self._chance = chance
        self._arenas = arenas
        self.jobs: set[str] = set()
        """Whatever was taken in for these has to end."""
        self.unreadable: list[str] = []
        """Subjects of tasks whose records cannot be read."""
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self._submit, self._cancel, self._task, self._preview, self._release, self._tensors,
        ]  # fmt: skip

    async def one(self) -> None:
        """One malformed message; that the bus or its client refuses it is as good."""
        try:
            await self._chance.choice(self._kinds)()
        except DarkroomError:
            return

    async def _submit(self) -> None:
        job_id = self._job_id()
        data = mutated(self._chance, request_of(job_id))
        await self._bus.store(subjects.submit(job_id), data)
        self.jobs.add(job_id)

    async def _cancel(self) -> None:
        job_id = self._job_id()
        data = mutated(self._chance, CancelRequest(job_id=job_id))
        await self._bus.publish(subjects.cancel(job_id), data)

    async def _task(self) -> None:
        """A task without a record, or that is none."""
        job_id, kind = self._job_id(), self._chance.choice(("encode", "denoise", "decode"))
        subject = subjects.work(kind, MODEL, "standard", job_id, f"{kind}-0", 1)
        task = NodeTask(job_id=job_id, node=f"{kind}-0", attempt=1)
        await self._bus.store(subject, mutated(self._chance, task))

    async def _preview(self) -> None:
        preview = {
            "type": "preview", "job_id": self._job_id(), "index": 0, "partial_index": 0, "step": 1,
            "latents": self._handle(), "output_format": "png", "output_compression": 100,
        }  # fmt: skip
        await self._bus.publish(subjects.preview(MODEL), mutated(self._chance, preview))

    async def _release(self) -> None:
        release = mutated(self._chance, ReleaseJob(job_id=self._job_id()))
        await self._bus.publish(subjects.release(self._chance.choice(self._arenas)), release)

    async def _tensors(self) -> None:
        """A good task of a record whose tensors are not what they should be. One that cannot be
        read at all (no service would write it) is taken away again: it would be kept for a newer
        version to read."""
        job_id = f"tensors-{uuid.UUID(int=self._chance.getrandbits(128)).hex}"
        kind = self._chance.choice(("denoise", "decode"))
        record = msgspec.msgpack.encode(self._record(job_id, kind))
        subject = subjects.work(kind, MODEL, "standard", job_id, f"{kind}-0", 1)
        await self._bus.create(subjects.RECORDS, job_id, record)
        await self._bus.store(subject, encode(NodeTask(job_id=job_id, node=f"{kind}-0", attempt=1)))
        if _readable(record):
            self.jobs.add(job_id)
        else:
            self.unreadable.append(subject)

    def _record(self, job_id: str, kind: str) -> dict[str, Any]:
        """All nodes before that of `kind` are done, and gave what no service would give."""
        spec = spec_of()
        fresh = new_record(job_id, spec, workflow(spec), time.time())
        record: dict[str, Any] = msgspec.to_builtins(fresh, builtin_types=(bytes,))
        nodes = record["nodes"]
        for name in ("encode",) if kind == "denoise" else ("encode", "denoise-0"):
            outputs = {output: self._handle() for output in ("embeds", "pooled", "latents")}
            nodes[name] |= {"status": "done", "outputs": outputs}
        nodes[f"{kind}-0"]["status"] = "ready"
        if kind == "denoise" and self._chance.random() < 0.5:
            step = self._chance.choice((-1, 0, 1, 99))
            nodes["denoise-0"]["checkpoint"] = {"step": step, "tensors": {"x": self._handle()}}
        return record

    def _handle(self) -> dict[str, Any]:
        """Of a slot that nobody gave away, or bytes of any type and shape; one in ten is none."""
        chance = self._chance
        side = chance.choice((0, 1, 3, 16, 77))
        dtype, width = chance.choice((("float32", 4), ("uint8", 1), ("int64", 8), ("bfloat16", 2)))
        size, inline = side * side * width, chance.random() < 0.5
        slot = {
            "host": chance.choice(("here", "0" * 36)),
            "arena": chance.choice((*self._arenas, "../../etc/passwd", "a" * 60)),
            "slot": chance.choice((0, 1, 2**40)),
            "generation": chance.choice((0, 1, 2**63 - 1)),
            "offset": chance.choice((0, 7, 2**60)),
            "address": chance.choice(("", "127.0.0.1:1", "nonsense")),
        }
        handle: dict[str, Any] = {
            "type": "tensor", "dtype": dtype, "shape": [side, side], "nbytes": size,
            "checksum": chance.getrandbits(32), "job_id": "job", "attempt": 1,
            "expires_at": chance.choice((0.0, 9e9)), "slot": None if inline else slot,
            "inline": chance.randbytes(size) if inline else None,
        }  # fmt: skip
        if inline and chance.random() < 0.7:  # right in every way, but for what it says
            handle["checksum"] = crc32(handle["inline"])
        return odd_value(chance, handle) if chance.random() < 0.1 else handle

    def _job_id(self) -> str:
        odd = self._chance.random() < 0.1
        return (
            self._chance.choice(("ÿ", "x" * 90, "%2E", "-"))
            if odd
            else (uuid.UUID(int=self._chance.getrandbits(128)).hex)
        )


def _readable(record: bytes) -> bool:
    try:
        decode(record, JobRecord)
    except InvalidRequest:
        return False
    return True


async def fuzz_messages(trial: Trial, count: int) -> None:
    """`count` malformed messages; then what could be taken for a job is cancelled, and has to end
    as every job does, every process is still the one it was, and works."""
    before = {child.spec.name: child.pid for child in trial.fleet.children}
    fuzzer = Fuzzer(trial.fleet.bus, trial.chance, list(await arenas_in_use(trial.fleet.bus)))

    async def send() -> None:
        while trial.runs < count:
            trial.runs += 1
            await fuzzer.one()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(send())
    for subject in fuzzer.unreadable:
        await trial.fleet.bus.remove(subjects.WORK, subject)
    await _cancel_all(trial, fuzzer.jobs)
    await asyncio.wait_for(trial.load.submit(0), HANG_SECONDS)
    after = {child.spec.name: child.pid for child in trial.fleet.children}
    trial.remarks += [f"{name} ended" for name, pid in before.items() if after[name] != pid]
    trial.figures["taken for jobs"] = len(fuzzer.jobs)


async def _cancel_all(trial: Trial, jobs: set[str]) -> None:
    """End what still runs; whoever does not answer for a job has never heard of it."""
    left = {job_id for job_id in jobs if await _open(trial, job_id)}
    deadline = time.monotonic() + CANCEL_SECONDS
    while left and time.monotonic() < deadline:
        for job_id in left:
            request = encode(CancelRequest(job_id=job_id))
            await trial.fleet.bus.publish(subjects.cancel(job_id), request)
        await asyncio.sleep(0.5)
        left = {job_id for job_id in left if await _open(trial, job_id)}
    trial.remarks += [f"{job_id} does not end" for job_id in sorted(left)[:5]]


async def _open(trial: Trial, job_id: str) -> bool:
    return await trial.fleet.bus.stored(subjects.result(job_id)) is None
