"""The arena's own promises, beyond those of every transport."""

import errno
import fcntl
import multiprocessing
import os
import resource
import stat
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import subjects
from shared.errors import ArenaFull, HandleLost, Misconfigured, TmpfsFull
from shared.messages.handle import ArenaSlot, TensorHandle
from shared.tensors import layout, owners
from shared.tensors.arena import Arena
from shared.tensors.arena_file import ArenaFile
from shared.tensors.extents import Extents, size_class
from shared.tensors.layout import UNIT
from shared.tensors.reader import ArenaReader

BIG = 3 * UNIT
CAPACITY = 64 * UNIT


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "arenas"


@pytest.fixture
def arena(directory: Path) -> Iterator[Arena]:
    with Arena.create(directory, CAPACITY, "denoiser") as arena:
        yield arena


def write(arena: Arena, data: bytes, job_id: str = "job") -> TensorHandle:
    return arena.write(data, "uint8", (len(data),), job_id=job_id, attempt=1, lifetime_seconds=60)


# ------------------------------------------------------------------------------------- the file


def test_file_and_directory_are_private(arena: Arena, directory: Path) -> None:
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(arena.path.stat().st_mode) == 0o600


def test_the_name_tells_the_owner_and_is_a_token_of_a_subject(arena: Arena) -> None:
    owner = owners.owner_of(arena.name)
    assert owner == owners.Owner("denoiser", os.getpid(), owners.start_time(os.getpid()) or 0)
    assert owners.is_running(owner)
    assert subjects.token(arena.name) == arena.name
    assert subjects.release(arena.name).count(".") == 3


def test_the_file_is_locked_while_the_owner_lives(arena: Arena) -> None:
    fd = os.open(arena.path, os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def test_the_file_is_never_sparse(arena: Arena) -> None:
    for size in (0, BIG, CAPACITY // 2):
        write(arena, bytes(size))
        found = arena.path.stat()
        assert found.st_blocks * 512 >= found.st_size
        assert arena.statistics().allocated <= found.st_size


def test_the_file_grows_only_when_used_and_never_beyond_the_capacity(directory: Path) -> None:
    with Arena.create(directory, 64 << 20, "vae") as arena:
        assert arena.statistics().allocated == 0
        write(arena, bytes(BIG))
        assert BIG <= arena.statistics().allocated <= 16 << 20
        write(arena, bytes(40 << 20))
        assert arena.statistics().allocated <= 64 << 20


def test_closing_removes_the_file(directory: Path) -> None:
    with Arena.create(directory, CAPACITY, "vae") as arena:
        pass
    assert list(directory.iterdir()) == []
    with pytest.raises(RuntimeError, match="closed"):
        write(arena, bytes(BIG))


@pytest.mark.parametrize("service", ["", "a.b", "a b", "a/b", "a*", "x" * 49])
def test_a_service_that_cannot_be_in_a_subject_is_refused(directory: Path, service: str) -> None:
    with pytest.raises(Misconfigured, match="allowed"):
        Arena.create(directory, CAPACITY, service)


def test_a_directory_that_others_can_enter_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(Misconfigured, match=r"mode 755; it has to be .* mode 700"):
        Arena.create(directory, CAPACITY, "vae")


def test_a_directory_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file", "file/below"):
        with pytest.raises(Misconfigured, match="the directory"):
            Arena.create(tmp_path / name, CAPACITY, "vae")


# --------------------------------------------------------------------------------- out of memory


@pytest.fixture
def file_limit() -> Iterator[int]:
    """Files may have 1 MiB: allocating more fails as it does on a file system that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield 1 << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_system_too_small_for_the_arena_is_refused_at_the_start(directory: Path) -> None:
    with pytest.raises(Misconfigured, match=r"bytes are needed, .* are free; enlarge .* shm_size"):
        Arena.create(directory, 1 << 60, "vae")
    assert list(directory.iterdir()) == []


def test_a_table_that_cannot_be_allocated_is_refused_at_the_start(
    directory: Path, file_limit: int
) -> None:
    with pytest.raises(Misconfigured, match="enlarge"):
        Arena.create(directory, 2 * file_limit // 32 * UNIT, "vae")
    assert list(directory.iterdir()) == []


def test_memory_that_runs_out_later_is_a_full_arena_and_what_is_there_stays(
    directory: Path, file_limit: int
) -> None:
    with Arena.create(directory, 4 * file_limit, "vae") as arena:
        first = write(arena, b"1" * BIG)
        with pytest.raises(TmpfsFull, match=f"the file system at {directory} has no room") as full:
            write(arena, bytes(file_limit))
        assert full.value.code == "tmpfs_full"
        assert full.value.fields["requested"] == file_limit
        assert isinstance(full.value, ArenaFull)  # what waits for room waits for this too
        assert arena.statistics().refused == 1
        with ArenaReader(directory) as reader:
            assert reader.read(first) == b"1" * BIG
            assert reader.read(write(arena, b"2" * BIG)) == b"2" * BIG
        assert arena.path.stat().st_size <= file_limit


def test_a_failure_that_is_not_lack_of_space_is_not_hidden(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="broken"):
        write(arena, bytes(BIG))
    assert arena.statistics().slots == 0


# -------------------------------------------------------------------------------- slots in use


def test_statistics_count_what_is_held(arena: Arena) -> None:
    for job in ("a", "a", "b"):
        write(arena, bytes(BIG), job)
    write(arena, b"inline", "c")
    counts = arena.statistics()
    assert (counts.slots, counts.jobs, counts.in_use) == (3, 2, 3 * BIG)
    assert counts.capacity == CAPACITY
    assert f"3 slots of 2 jobs, {3 * BIG} of {CAPACITY} bytes in use" in repr(arena)
    arena.release_job("a")
    arena.release_job("b")
    assert (arena.statistics().slots, arena.statistics().in_use) == (0, 0)


def test_the_slot_freed_last_is_used_next(arena: Arena) -> None:
    handles = [write(arena, bytes(BIG)) for _ in range(3)]
    arena.free(handles[0])
    arena.free(handles[1])
    places = [write(arena, bytes(BIG)).slot, write(arena, bytes(BIG)).slot]
    assert [place and place.offset for place in places] == [
        handle.slot and handle.slot.offset for handle in (handles[1], handles[0])
    ]


def test_the_whole_capacity_can_be_used_in_any_sizes(arena: Arena) -> None:
    for size in (BIG, CAPACITY, 5 * UNIT, CAPACITY - UNIT, CAPACITY // 2):
        handles = [
            write(arena, bytes(size)) for _ in range(CAPACITY // (size_class(size // UNIT) * UNIT))
        ]
        assert handles
        assert arena.release_job("job") == len(handles)


def test_a_job_that_ends_while_it_is_written_holds_nothing(
    arena: Arena, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = layout.write_fully

    def ends_meanwhile(fd: int, data: memoryview, offset: int) -> None:
        write_bytes(fd, data[:100], offset)
        assert arena.release_job("job") == 1
        write_bytes(fd, data[100:], offset + 100)

    with monkeypatch.context() as patch:
        patch.setattr(layout, "write_fully", ends_meanwhile)
        late = write(arena, b"x" * BIG)
    assert arena.statistics().slots == 0
    same_place = write(arena, b"x" * BIG)
    assert late.slot is not None
    assert same_place.slot is not None
    assert same_place.slot.offset == late.slot.offset
    with ArenaReader(directory) as reader:
        assert reader.read(same_place) == b"x" * BIG
        with pytest.raises(HandleLost):
            reader.read(late)


def test_a_write_that_fails_leaves_nothing_behind(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(fd: int, data: memoryview, offset: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(layout, "write_fully", fails)
        with pytest.raises(OSError, match="broken"):
            write(arena, bytes(BIG))
    assert arena.statistics().in_use == 0
    assert len(write(arena, bytes(BIG)).shape) == 1


def test_closing_waits_for_a_write_in_another_thread(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = Arena.create(directory, CAPACITY, "vae")
    writing, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    write_bytes = layout.write_fully

    def slow(fd: int, data: memoryview, offset: int) -> None:
        writing.set()
        assert go_on.wait(10)
        write_bytes(fd, data, offset)

    def close() -> None:
        arena.close()
        closed.set()

    monkeypatch.setattr(layout, "write_fully", slow)
    writer = threading.Thread(target=write, args=(arena, bytes(BIG)))
    closer = threading.Thread(target=close)
    writer.start()
    assert writing.wait(10)
    closer.start()
    assert not closed.is_set()
    assert arena.path.exists()
    go_on.set()
    for thread in (writer, closer):
        thread.join(10)
    assert closed.is_set()
    assert not arena.path.exists()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=60))
def test_extents_never_overlap_and_nothing_is_lost(
    limit: int, wishes: list[tuple[int, bool]]
) -> None:
    extents = Extents(limit)
    held: list[tuple[int, int]] = []
    for size, give_one_back in wishes:
        if give_one_back and held:
            extents.give(*held.pop(size % len(held)))
        elif (start := extents.take(size)) is not None:
            held.append((start, size))
        units = [unit for start, size in held for unit in range(start, start + size)]
        assert len(units) == len(set(units))
        assert all(0 <= unit < limit for unit in units)
    for run in held:
        extents.give(*run)
    assert extents.take(limit) == 0


@given(st.integers(1, 1 << 40))
def test_a_size_class_wastes_a_quarter_at_most(units: int) -> None:
    assert units <= size_class(units) <= units * 5 / 4
    assert size_class(size_class(units)) == size_class(units)


# ------------------------------------------------------------------------------------- readers


def test_a_reader_keeps_a_bounded_number_of_arenas_open(directory: Path) -> None:
    arenas = [Arena.create(directory, CAPACITY, "vae") for _ in range(4)]
    handles = [write(arena, bytes([i]) * BIG) for i, arena in enumerate(arenas)]
    with ArenaReader(directory, open_arenas=2) as reader:
        for _ in range(2):
            for i, handle in enumerate(handles):
                assert reader.read(handle) == bytes([i]) * BIG
        assert "2 of 2 arenas open" in repr(reader)
        for arena in arenas:
            arena.close()
        assert reader.forget_removed() == 2


def test_a_handle_from_before_a_reboot_is_lost(arena: Arena, directory: Path) -> None:
    handle = write(arena, bytes(BIG))
    assert handle.slot is not None
    earlier = msgspec.structs.replace(
        handle, slot=msgspec.structs.replace(handle.slot, host="another boot")
    )
    with ArenaReader(directory) as reader, pytest.raises(HandleLost, match="reboot"):
        reader.read(earlier)


def test_a_file_cut_short_under_its_readers_is_lost(arena: Arena, directory: Path) -> None:
    handle = write(arena, bytes(BIG))
    with ArenaReader(directory) as reader:
        assert len(reader.read(handle)) == BIG
        for size in (arena.path.stat().st_size - arena.statistics().allocated, 4100, 10, 0):
            os.truncate(arena.path, size)
            with pytest.raises(HandleLost):
                reader.read(handle)
    with ArenaReader(directory) as reader, pytest.raises(HandleLost):
        reader.read(handle)


def test_bytes_changed_behind_the_owners_back_are_lost(arena: Arena, directory: Path) -> None:
    handle = write(arena, bytes(BIG))
    assert handle.slot is not None
    with arena.path.open("r+b") as file:
        file.seek(handle.slot.offset + BIG - 1)
        file.write(b"!")
    with ArenaReader(directory) as reader, pytest.raises(HandleLost, match="checksum"):
        reader.read(handle)


def test_files_that_are_no_arenas_are_not_read(arena: Arena, directory: Path) -> None:
    handle = write(arena, bytes(BIG))
    content = arena.path.read_bytes()
    arena.path.unlink()
    foreign = directory.parent / "foreign"
    foreign.write_bytes(content)
    arena.path.symlink_to(foreign)
    with ArenaReader(directory) as reader:
        with pytest.raises(HandleLost, match="cannot be opened"):
            reader.read(handle)
        arena.path.unlink()
        arena.path.write_bytes(b"not an arena" * 1000)
        with pytest.raises(HandleLost, match="not a file of ours"):
            reader.read(handle)
        arena.path.unlink()
        os.mkfifo(arena.path)
        with pytest.raises(HandleLost, match="not a file of ours"):
            reader.read(handle)


# --------------------------------------------------------------------------------- torn reads


def test_a_slot_recycled_in_the_middle_of_a_read_is_lost(
    arena: Arena, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum is kept out of it: the generation has to tell alone."""
    handle = write(arena, b"1" * BIG)
    read_bytes = layout.read_fully
    recycled: list[TensorHandle] = []

    def recycled_meanwhile(fd: int, into: memoryview, offset: int) -> bool:
        read_bytes(fd, into[:UNIT], offset)
        arena.free(handle)
        recycled.append(write(arena, b"2" * BIG))
        return read_bytes(fd, into[UNIT:], offset + UNIT)

    monkeypatch.setattr("shared.tensors.reader.crc32", lambda data: handle.checksum)
    monkeypatch.setattr(layout, "read_fully", recycled_meanwhile)
    with ArenaReader(directory) as reader, pytest.raises(HandleLost, match="while it was read"):
        reader.read(handle)
    assert recycled[0].slot is not None
    assert handle.slot is not None
    assert recycled[0].slot.offset == handle.slot.offset


TORN = 32 * UNIT
READS = 150


def rewrite_one_slot(directory: Path, pipe: Connection) -> None:
    """As fast as it goes, without the pauses for checksums that an arena's own writes make."""
    contents = [memoryview(bytes([i]) * TORN) for i in range(16)]
    checksums = [crc32(content) for content in contents]
    file = ArenaFile.create(directory, TORN, "writer")
    assert file.grow(TORN // UNIT)
    pipe.send(file.path)
    generation = 0
    while not pipe.poll():
        file.write(0, contents[generation % 16 // 2])
        file.publish(0, generation + 1, TORN, checksums[generation % 16 // 2])
        bytes(contents[0])  # about as long as a reader takes, which may thus begin but not end
        file.withdraw(0, generation + 2)
        generation += 2
    file.remove()


def handle_of(arena: str, entry: layout.Entry) -> TensorHandle:
    return TensorHandle(
        dtype="uint8",
        shape=(TORN,),
        nbytes=TORN,
        checksum=entry.checksum,
        job_id="job",
        attempt=1,
        expires_at=0,
        slot=ArenaSlot(
            host=owners.host_id(),
            arena=arena,
            slot=0,
            generation=entry.generation,
            offset=entry.offset,
        ),
    )


def is_whole(reader: ArenaReader, handle: TensorHandle) -> bool:
    """False if it is lost."""
    try:
        found = reader.read(handle)
    except HandleLost:
        return False
    assert found.count(found[0]) == TORN
    return True


def test_reads_beside_a_recycling_process_are_whole_or_lost(directory: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=rewrite_one_slot, args=(directory, theirs))
    process.start()
    path: Path = ours.recv()
    reads = 0
    with path.open("rb") as file, ArenaReader(directory) as reader:
        while reads < READS:
            entry = layout.read_entry(file.fileno(), 0)
            if entry is not None and entry.generation % 2 == 1:
                is_whole(reader, handle_of(path.stem, entry))
                reads += 1
    ours.send("enough")
    process.join(10)
    ours.close()
    assert process.exitcode == 0


def test_reads_beside_a_recycling_thread_are_whole_or_lost(directory: Path) -> None:
    with Arena.create(directory, 8 * TORN, "writer") as arena, ArenaReader(directory) as reader:
        latest = [write(arena, bytes(TORN))]

        def recycle() -> None:
            for i in range(READS):
                handle = write(arena, bytes([i % 256]) * TORN)
                arena.free(latest[0])
                latest[0] = handle

        writer = threading.Thread(target=recycle)
        writer.start()
        while writer.is_alive():
            is_whole(reader, latest[0])
        writer.join()
        assert is_whole(reader, latest[0])
        assert arena.release_job("job") == 1


def test_an_arena_left_in_peace_stays_readable_while_jobs_need_it(tmp_path: Path) -> None:
    arena = Arena.create(tmp_path, CAPACITY, "denoiser")
    handle = write(arena, b"x" * 100_000)
    arena.leave()
    reader = ArenaReader(tmp_path)
    assert bytes(reader.read(handle)) == b"x" * 100_000
    reader.close()


def test_an_arena_left_empty_is_removed_at_once(tmp_path: Path) -> None:
    arena = Arena.create(tmp_path, CAPACITY, "denoiser")
    arena.free(write(arena, b"x" * 100_000))
    arena.leave()
    assert not arena.path.exists()
