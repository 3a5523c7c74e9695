"""Activation caches of a host: recorded by one, found by all, bounded, and never trusted
blindly."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from services.denoiser.mask_cache import files
from services.denoiser.mask_cache.key import CacheKeyParts, cache_key, fingerprint
from services.denoiser.mask_cache.store import ActivationStore
from shared.errors import Misconfigured

KEY, OTHER, THIRD = (digit * 64 for digit in "123")
STEPS = range(2, 5)
NBYTES = 3 * 2 * 64 * 2
"""Of an activation cache's tensors; files have a header each beside them."""
ROOM = 2 * NBYTES


def tensors(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(8, 8, generator=generator).half() for name in ("k.0", "v.0")}


def store(folder: Path, room: int = 20 * ROOM, disk: int = 20 * ROOM) -> ActivationStore:
    return ActivationStore(folder / "memory", folder / "disk", room, disk)


def record(into: ActivationStore, key: str = KEY) -> None:
    recording = into.record(key, NBYTES)
    assert recording is not None
    for step in STEPS:
        recording.write(step, tensors(step))
    recording.finish()


def same(into: ActivationStore, key: str = KEY) -> bool:
    found = into.find(key, STEPS)
    assert found is not None
    return all(
        torch.equal(found.at(step)[name], tensor)
        for step in STEPS
        for name, tensor in tensors(step).items()
    )


def files_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


DIES = """
import os, sys
from pathlib import Path
from tests.services.denoiser.mask_cache.test_store import KEY, OTHER, NBYTES, record, store, tensors
one = store(Path(sys.argv[1]))
record(one)
one.record(OTHER, NBYTES).write(2, tensors(2))
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process leaves that had recorded `KEY`, and was recording `OTHER` when it died."""
    folder = tmp_path_factory.mktemp("left")
    assert subprocess.run([sys.executable, "-c", DIES, str(folder)]).returncode == -9
    return folder


def test_what_one_process_recorded_all_find(left: Path, tmp_path: Path) -> None:
    assert store(tmp_path).find(KEY, STEPS) is None
    record(store(tmp_path))
    assert same(store(tmp_path))
    assert same(store(left))


def test_a_cache_is_found_only_once_all_of_it_is_there(tmp_path: Path) -> None:
    one = store(tmp_path)
    recording = one.record(KEY, NBYTES)
    assert recording is not None
    recording.write(2, tensors(2))
    assert one.find(KEY, STEPS) is None
    recording.drop()
    assert one.find(KEY, STEPS) is None
    assert one.statistics().templates == 0


def test_only_one_records_a_cache_at_a_time(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path)
    recording = one.record(KEY, NBYTES)
    assert recording is not None
    assert other.record(KEY, NBYTES) is None
    recording.drop()
    record(other)
    assert one.record(KEY, NBYTES) is None


def test_what_is_being_recorded_counts_against_the_bound(tmp_path: Path) -> None:
    one = store(tmp_path, room=ROOM, disk=0)
    recordings = [one.record(key, NBYTES) for key in (KEY, OTHER)]
    assert all(recordings)
    assert one.record(THIRD, NBYTES) is None
    assert one.statistics().refused == 1
    for recording in recordings:
        assert recording is not None
        recording.drop()
    record(one, THIRD)
    assert same(one, THIRD)


def test_nothing_goes_for_a_recording_that_has_no_room_in_any_case(tmp_path: Path) -> None:
    record(store(tmp_path))
    one = store(tmp_path, room=files_bytes(tmp_path) + NBYTES, disk=0)
    assert one.record(OTHER, NBYTES) is not None
    assert one.record(THIRD, 2 * NBYTES + 1) is None
    assert same(one)


def test_nothing_goes_for_a_recording_that_somebody_else_has(tmp_path: Path) -> None:
    record(store(tmp_path))
    one = store(tmp_path, room=files_bytes(tmp_path) + NBYTES, disk=0)
    assert one.record(OTHER, NBYTES) is not None
    assert one.record(OTHER, NBYTES) is None
    assert same(one)


def test_what_a_dead_process_was_recording_is_removed(left: Path) -> None:
    one = store(left)
    assert one.statistics().templates == 2
    record(one, THIRD)
    assert one.statistics().templates == 2
    record(one, OTHER)
    assert all(same(one, key) for key in (KEY, OTHER, THIRD))


def test_the_least_recently_used_goes_to_disk_and_is_found_there(tmp_path: Path) -> None:
    record(store(tmp_path))
    size = files_bytes(tmp_path / "memory")
    one = store(tmp_path, room=2 * size + NBYTES // 2)
    record(one, OTHER)
    assert same(one)  # now the other one was not used for longest
    record(one, THIRD)
    assert not (tmp_path / "memory" / OTHER).exists()
    assert all(same(one, key) for key in (KEY, OTHER, THIRD))
    found = one.statistics()
    assert (found.templates, found.spilled, found.spills, found.evictions) == (2, 1, 1, 0)
    assert found.bytes <= found.bound


def test_what_the_disk_has_no_room_for_is_gone(tmp_path: Path) -> None:
    record(store(tmp_path))
    size = files_bytes(tmp_path)
    one = store(tmp_path, room=size, disk=size)
    for key in (OTHER, THIRD):
        record(one, key)
    assert one.find(KEY, STEPS) is None
    assert same(one, OTHER)
    assert one.statistics().evictions == 1
    nowhere = store(tmp_path, room=size, disk=0)
    record(nowhere)
    assert nowhere.find(THIRD, STEPS) is None


def test_who_has_mapped_a_cache_keeps_it_when_it_is_evicted(tmp_path: Path) -> None:
    record(store(tmp_path))
    one = store(tmp_path, room=files_bytes(tmp_path), disk=0)
    found = one.find(KEY, STEPS)
    assert found is not None
    record(one, OTHER)
    assert one.find(KEY, STEPS) is None
    assert torch.equal(found.at(3)["k.0"], tensors(3)["k.0"])


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_cache_can_be_replaced(tmp_path: Path, where: str) -> None:
    small = store(tmp_path, room=ROOM if where == "disk" else 20 * ROOM)
    record(small)
    if where == "disk":
        record(small, OTHER)
    before = small.find(KEY, STEPS)
    assert before is not None
    assert small.record(KEY, NBYTES) is None
    recording = small.record(KEY, NBYTES, replaced=True)
    assert recording is not None
    assert small.record(KEY, NBYTES, replaced=True) is None
    for step in STEPS:
        recording.write(step, tensors(step + 10))
    assert same(small)
    recording.finish()
    after = small.find(KEY, STEPS)
    assert after is not None
    for step in STEPS:
        assert torch.equal(before.at(step)["k.0"], tensors(step)["k.0"])
        assert torch.equal(after.at(step)["k.0"], tensors(step + 10)["k.0"])
    assert len(list(tmp_path.glob(f"*/{KEY}"))) == 1


def test_a_cache_that_is_replaced_while_it_is_opened_is_of_one_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, opened = store(tmp_path), files._mapped
    record(one)
    recording = one.record(KEY, NBYTES, replaced=True)
    assert recording is not None
    for step in STEPS:
        recording.write(step, tensors(step + 10))

    def replacing(path: Path, key: str, step: int) -> Any:
        found = opened(path, key, step)
        recording.finish()
        return found

    monkeypatch.setattr(files, "_mapped", replacing)
    found = one.find(KEY, STEPS)
    assert found is not None
    for step in STEPS:
        assert torch.equal(found.at(step)["k.0"], tensors(step + 10)["k.0"])
    assert one.statistics().distrusted == 0


def test_what_was_about_to_be_replaced_when_a_process_died_is_removed(tmp_path: Path) -> None:
    one = store(tmp_path)
    record(one)
    (tmp_path / "memory" / KEY).rename(tmp_path / "memory" / f"{KEY}{files.GONE}")
    record(one, OTHER)
    assert one.statistics().templates == 1
    record(one)
    assert same(one)


def test_a_cache_that_is_larger_than_the_bound_is_refused(tmp_path: Path) -> None:
    one = store(tmp_path, room=NBYTES - 1)
    assert one.record(KEY, NBYTES) is None
    assert one.statistics().refused == 1


@pytest.mark.parametrize("harm", ["cut short", "another's", "gone", "not one at all"])
def test_a_file_that_cannot_be_trusted_is_no_cache(tmp_path: Path, harm: str) -> None:
    one = store(tmp_path)
    record(one)
    record(one, OTHER)
    path = tmp_path / "memory" / KEY / "3.safetensors"
    match harm:
        case "cut short":
            os.truncate(path, path.stat().st_size - 1)
        case "another's":
            path.write_bytes((tmp_path / "memory" / OTHER / "3.safetensors").read_bytes())
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(b"{" * 100)
    assert one.find(KEY, STEPS) is None
    assert one.statistics().distrusted == 1
    record(one)
    assert same(one)


def test_everything_that_activations_depend_on_is_in_the_key(tmp_path: Path) -> None:
    parts = CacheKeyParts(
        image="a",
        model="m",
        adapters=(("l", 1.0),),
        sampler="flow_euler",
        steps=20,
        first_step=0,
        shape=(4, 16, 16),
        kept="keys_values float16",
    )
    others = (
        {"image": "b"}, {"model": "n"}, {"adapters": ()}, {"adapters": (("l", 0.5),)},
        {"sampler": "euler"}, {"steps": 21}, {"first_step": 1}, {"shape": (4, 16, 8)},
        {"kept": "outputs float16"},
    )  # fmt: skip
    given = {name: getattr(parts, name) for name in parts.__struct_fields__}
    keys = {cache_key(CacheKeyParts(**(given | other))) for other in ({}, *others)}
    assert len(keys) == 1 + len(others)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a.safetensors").write_bytes(b"1")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    (tmp_path / "a.safetensors").write_bytes(b"12")
    assert fingerprint(tmp_path) != before


def test_a_directory_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir(mode=0o755)
    with pytest.raises(Misconfigured, match="700"):
        store(tmp_path)
