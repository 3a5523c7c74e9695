"""A process over its memory budget takes no more work, says so once, and recovers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shared.errors import MemoryBudgetExceeded
from shared.models.files.weights import weight_bytes
from shared.worker.memory_budget import (
    LOOK_SECONDS,
    MemoryBudget,
    component_bytes,
    resident_bytes,
)


class World:
    """A process whose memory and clock a test sets."""

    def __init__(self, budget: int) -> None:
        self.used = 0
        self.now = 0.0
        self.refused: list[str] = []
        self.spare = 0
        self.budget = MemoryBudget(
            budget, self.refused.append, lambda: self.used, lambda: self.now, self.release
        )

    def release(self) -> None:
        self.used, self.spare = self.used - self.spare, 0

    def room_at(self, used: int) -> bool:
        self.used = used
        self.now += LOOK_SECONDS
        return self.budget.refusal() is None


def test_work_is_refused_over_the_budget_and_taken_again_below_it() -> None:
    world = World(1000)
    assert [world.room_at(used) for used in (0, 1000, 1001, 990, 951, 950, 1000)] == [
        True,
        True,
        False,
        False,
        False,
        True,
        True,
    ]
    assert world.refused == ["memory_budget"]  # counted when it begins, not at every look


def test_memory_that_is_only_kept_for_later_is_given_back_before_work_is_refused() -> None:
    world = World(1000)
    world.spare = 100
    assert world.room_at(1050)
    assert not world.room_at(1050)
    world.spare = 100
    assert world.room_at(1050)


def test_a_refusal_is_said_by_name(caplog: pytest.LogCaptureFixture) -> None:
    World(10).room_at(11)
    assert "memory_budget: 11 bytes are resident, over the budget of 10" in caplog.text


def test_one_look_is_believed_for_a_moment() -> None:
    world = World(10)
    assert world.room_at(1)
    world.used = 99
    assert world.budget.refusal() is None
    assert not world.room_at(99)


def test_without_a_budget_there_is_always_room() -> None:
    world = World(0)
    assert world.room_at(10**15)
    world.budget.refuse_larger("a model", 10**15)
    world.budget.refuse_unreachable("a process")
    assert world.refused == []


def test_a_model_over_the_budget_is_refused_by_name_before_it_is_loaded() -> None:
    world = World(1000)
    world.used = 400
    world.budget.refuse_larger("unet of pocket", 600)
    with pytest.raises(MemoryBudgetExceeded, match="unet of pocket needs 1001 bytes") as refused:
        world.budget.refuse_larger("unet of pocket", 601)
    assert "DARKROOM_MEMORY_BUDGET" in refused.value.message
    assert world.refused == ["memory_budget"]


def test_this_process_is_resident() -> None:
    assert 1_000_000 < resident_bytes() < 2**46


def test_weights_in_two_precisions_count_once(tmp_path: Path) -> None:
    for name, size in (
        ("model.safetensors", 8),
        ("model.fp16.safetensors", 4),
        ("config.json", 2),
    ):
        (tmp_path / name).write_bytes(bytes(size))
    assert weight_bytes(tmp_path) == 8
    (tmp_path / "model.safetensors").unlink()
    assert weight_bytes(tmp_path) == 4


def test_weights_count_as_large_as_they_are_loaded(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(100).half(), "b": torch.zeros(10, dtype=torch.int64)}
    (tmp_path / "unet").mkdir()
    save_file(tensors, tmp_path / "unet" / "model.safetensors")
    for dtype, size in (("float32", 480), ("float16", 280), ("bfloat16", 280)):
        assert component_bytes(str(tmp_path), "unet", dtype=dtype) == size
    assert component_bytes(str(tmp_path), "unet") > 280


def test_a_refusal_says_what_is_used_and_of_what_and_lasts() -> None:
    world = World(1000)
    assert not world.room_at(1234)
    refusal = world.budget.refusal()
    assert refusal is not None
    assert refusal.lasting
    assert "1234 bytes" in refusal.reason
    assert "DARKROOM_MEMORY_BUDGET=1000" in refusal.reason


@pytest.mark.parametrize("used", [0, 500, 950])
def test_a_budget_that_can_be_met_again_is_no_hindrance(used: int) -> None:
    world = World(1000)
    world.used = used
    world.budget.refuse_unreachable("vae-1")


@pytest.mark.parametrize(("used", "needed"), [(951, 1002), (1000, 1053), (5000, 5264)])
def test_a_budget_that_could_never_be_met_again_is_refused_with_what_is_needed(
    used: int, needed: int
) -> None:
    world = World(1000)
    world.used = used
    sentence = f"vae-1 needs {needed} bytes, over DARKROOM_MEMORY_BUDGET=1000"
    with pytest.raises(MemoryBudgetExceeded, match=sentence):
        world.budget.refuse_unreachable("vae-1")
