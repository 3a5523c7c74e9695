"""The parts of the harness that decide what is good, what grows, and what is malformed."""

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.memory import MemoryBroker, MemoryBus
from shared.messages import NodeProgress, NodeTask, StepProgress
from tests.chaos.check.recovery import Recovery
from tests.chaos.harm.mutation import mutated
from tests.chaos.harm.soak import RSS_PER_MINUTE, WARM_UP, Sample, slopes
from tests.chaos.report import CaseResult, merge, table

GOOD = CaseResult(
    case="kill", long=True, runs=2, wanted_runs=2, jobs=9, lost=0, failed=0, second_results=0,
    violations=[], slots_left=0, files_left=0, processes_left=0, differing=0, remarks=[],
    figures={"next step p95 s": 2.5}, seconds=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"runs": 1},
        {"lost": 1},
        {"failed": 1},
        {"second_results": 1},
        {"violations": ["lease went back"]},
        {"slots_left": 1},
        {"files_left": 1},
        {"processes_left": 1},
        {"differing": 1},
        {"remarks": ["a process hung"]},
    ],
)
def test_anything_wrong_fails_a_case_and_is_told(wrong: dict[str, object]) -> None:
    assert (GOOD.verdict, GOOD.troubles()) == ("pass", [])
    bad = msgspec.structs.replace(GOOD, **wrong)
    assert bad.verdict == "FAIL"
    assert len(bad.troubles()) == 1


def test_a_case_that_was_run_again_replaces_its_result_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    merge(file, [GOOD, msgspec.structs.replace(GOOD, case="stop")])
    merged = merge(file, [msgspec.structs.replace(GOOD, jobs=10)])
    assert [(result.case, result.jobs) for result in merged] == [("kill", 10), ("stop", 9)]
    assert table(merged).row_count == 2


def test_growth_is_measured_after_warm_up_only() -> None:
    seconds = range(0, 1200, 5)
    flat = [Sample(at, 200.0 + 50.0 * min(at / 1200 / WARM_UP, 1.0), 30) for at in seconds]
    leaking = [
        Sample(s.at, s.rss + 2 * RSS_PER_MINUTE * s.at / 60, 30 + int(s.at // 60)) for s in flat
    ]
    assert slopes(flat) == pytest.approx((0.0, 0.0), abs=1e-6)
    rss, files = slopes(leaking)
    assert rss == pytest.approx(2 * RSS_PER_MINUTE)
    assert files == pytest.approx(1.0, abs=0.02)


@given(st.integers(0, 1 << 32))
def test_the_same_seed_makes_the_same_malformed_message(seed: int) -> None:
    task = NodeTask(job_id="job", node="encode", attempt=1)
    first, second = (mutated(random.Random(seed), task) for _ in range(2))
    assert first == second


def test_most_mutated_messages_are_not_the_message() -> None:
    task = NodeTask(job_id="job", node="encode", attempt=1)
    chance = random.Random(1)
    made = {mutated(chance, task) for _ in range(200)}
    assert len(made - {msgspec.msgpack.encode(task)}) > 150


def test_a_row_s_standstill_lasts_from_the_kill_to_its_next_step_elsewhere() -> None:
    recovery = Recovery(MemoryBus(MemoryBroker(), "test"))

    def started(worker: str, at: float) -> NodeProgress:
        return NodeProgress(
            job_id="job", node="denoise-0", kind="denoise", state="started", at=at, worker=worker
        )

    def step(number: int, at: float) -> StepProgress:
        return StepProgress(
            job_id="job", node="denoise-0", index=0, step=number, steps=9, rows=1, at=at
        )

    for event in (started("one", 1.0), step(1, 1.5), step(2, 2.0)):
        recovery.take(event)
    assert recovery.killed("one", 2.1) == 1
    recovery.take(step(3, 2.05))  # it was on its way when the process died
    assert recovery.seconds == []
    for event in (started("other", 4.0), step(3, 4.6), step(4, 5.0)):
        recovery.take(event)
    assert recovery.seconds == [pytest.approx(2.5)]
