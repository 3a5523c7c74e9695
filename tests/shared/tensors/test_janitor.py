"""What a janitor removes, when, and what it never touches."""

import fcntl
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from shared.errors import HandleLost
from shared.messages.handle import TensorHandle
from shared.security.private_files import private_directory
from shared.tensors import janitor, layout, owners
from shared.tensors.arena import Arena
from shared.tensors.janitor import Observation, decide, remove_all_of, sweep
from shared.tensors.layout import UNIT
from shared.tensors.reader import ArenaReader

NOW = 1_000_000.0
GRACE = 120.0
DEAD = owners.Owner("dead", 1 << 22, 1)
"""Beyond the largest pid that Linux gives."""


def arena_file(directory: Path, owner: owners.Owner = DEAD) -> Path:
    """What an owner leaves behind."""
    path = private_directory(directory) / (owners.new_name(owner) + owners.SUFFIX)
    path.write_bytes(layout.Header(UNIT, owner.pid, owner.started).pack())
    return path


# ---------------------------------------------------------------------------------- the decision


def test_any_sign_of_life_keeps_an_arena_for_ever() -> None:
    for locked, running, orphaned_at in product((True, False), (True, False), (0.0, 1.0)):
        if locked or running:
            seen = Observation(locked, running, orphaned_at)
            assert decide(seen, 0.0, NOW) == "keep"


def test_an_ownerless_arena_is_marked_once_then_kept_for_the_grace_then_removed() -> None:
    def verdict(orphaned_at: float) -> janitor.Verdict:
        return decide(Observation(False, False, orphaned_at), GRACE, NOW)

    assert verdict(0.0) == "mark"
    assert verdict(NOW) == "keep"
    assert verdict(NOW - GRACE + 1) == "keep"
    assert verdict(NOW - GRACE) == "remove"


def test_without_grace_an_ownerless_arena_goes_at_once() -> None:
    assert decide(Observation(False, False, 0.0), 0.0, NOW) == "remove"


# ------------------------------------------------------------------------------------- the files


def test_a_living_owners_arena_is_never_removed(tmp_path: Path) -> None:
    with Arena.create(tmp_path / "arenas", UNIT, "alive") as arena:
        for now in (NOW, NOW * 2, NOW * 3):
            assert sweep(arena.path.parent, 0.0, now) == []
        assert arena.path.exists()


def test_a_running_owner_that_does_not_hold_the_lock_yet_is_left_alone(tmp_path: Path) -> None:
    path = arena_file(tmp_path / "arenas", owners.this_process("starting"))
    assert sweep(path.parent, 0.0, NOW) == []
    assert path.exists()


def test_an_owner_elsewhere_that_holds_the_lock_is_left_alone(tmp_path: Path) -> None:
    path = arena_file(tmp_path / "arenas")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sweep(path.parent, 0.0, NOW) == []
    assert sweep(path.parent, 0.0, NOW) == [path]


def test_a_reused_pid_does_not_keep_an_arena(tmp_path: Path) -> None:
    earlier = owners.Owner("earlier", os.getpid(), 1)
    path = arena_file(tmp_path / "arenas", earlier)
    assert remove_all_of(path.parent, NOW) == [path]


def test_the_grace_begins_when_the_first_janitor_comes_by(tmp_path: Path) -> None:
    path = arena_file(tmp_path / "arenas")
    assert sweep(path.parent, GRACE, NOW) == []
    assert sweep(path.parent, GRACE, NOW + GRACE - 1) == []
    assert sweep(path.parent, GRACE, NOW + GRACE) == [path]
    assert not path.exists()


def test_a_file_whose_owner_died_while_making_it_goes_after_the_grace(tmp_path: Path) -> None:
    path = arena_file(tmp_path / "arenas")
    path.write_bytes(b"")
    os.utime(path, (NOW, NOW))
    assert sweep(path.parent, GRACE, NOW + GRACE - 1) == []
    assert sweep(path.parent, GRACE, NOW + GRACE) == [path]


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "arenas")
    name = owners.new_name(DEAD) + owners.SUFFIX
    (directory / "notes.txt").write_text("keep")
    (directory / "notes.arena").write_text("keep")
    (directory / owners.new_name(DEAD)).write_text("no suffix")
    (directory / (owners.new_name(DEAD) + owners.SUFFIX)).write_text("not an arena at all" * 10)
    (directory / (owners.new_name(DEAD) + owners.SUFFIX)).mkdir()
    (directory / (owners.new_name(DEAD) + owners.SUFFIX)).symlink_to(arena_file(tmp_path / "other"))
    os.mkfifo(directory / name)
    before = sorted(directory.iterdir())
    assert sweep(directory, 0.0, NOW) == []
    assert sorted(directory.iterdir()) == before


def test_a_missing_directory_is_an_empty_one(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", 0.0, NOW) == []


def test_several_janitors_at_once_remove_each_arena_once(tmp_path: Path) -> None:
    paths = {arena_file(tmp_path / "arenas") for _ in range(40)}
    with Arena.create(tmp_path / "arenas", UNIT, "alive") as arena, ThreadPoolExecutor(4) as pool:
        rounds = pool.map(lambda _: sweep(tmp_path / "arenas", 0.0, NOW), range(8))
        removed = [path for found in rounds for path in found]
        removed += sweep(tmp_path / "arenas", 0.0, NOW)
        assert len(removed) == len(paths)
        assert set(removed) == paths
        assert arena.path.exists()


# -------------------------------------------------------------------------------- killed owners


def own_until_killed(directory: Path, pipe: Connection) -> None:
    arena = Arena.create(directory, 64 * UNIT, "victim")
    for i in range(3):
        data = bytes([i]) * (3 * UNIT)
        pipe.send(
            arena.write(data, "uint8", (len(data),), job_id="j", attempt=1, lifetime_seconds=60)
        )
    pipe.recv()


def killed_owners_handles(directory: Path) -> list[TensorHandle]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=own_until_killed, args=(directory, theirs))
    process.start()
    handles = [ours.recv() for _ in range(3)]
    assert remove_all_of(directory, NOW) == []
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    ours.close()
    theirs.close()
    return handles


def test_a_killed_owners_tensors_are_read_until_they_are_swept(tmp_path: Path) -> None:
    handles = killed_owners_handles(tmp_path / "arenas")
    with ArenaReader(tmp_path / "arenas") as reader:
        assert sweep(tmp_path / "arenas", GRACE, NOW) == []
        for i, handle in enumerate(handles):
            assert reader.read(handle) == bytes([i]) * (3 * UNIT)
        assert len(sweep(tmp_path / "arenas", GRACE, NOW + GRACE)) == 1
        assert reader.forget_removed() == 1
        with pytest.raises(HandleLost, match="cannot be opened"):
            reader.read(handles[0])
    assert list((tmp_path / "arenas").iterdir()) == []
