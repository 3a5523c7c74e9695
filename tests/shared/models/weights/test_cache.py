"""Converted weights on disk: found again, found unfit by name, and at most so many bytes."""

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import Misconfigured
from shared.models.weights import sharing
from shared.models.weights.cache import Wanted, WeightsCache
from shared.models.weights.component import Component

NAME = "model.safetensors"
NUMBERS = 1000


class Shelf(NamedTuple):
    """A model's component, and a cache for what is made of it."""

    model: Path
    directory: Path
    cache: WeightsCache

    def wanted(self, folder: str = "unet", made_by: str = "torch 1") -> Wanted:
        component = Component.of(str(self.model), folder)
        assert component is not None
        return Wanted(component, component.state(), "Network-bfloat16", made_by)

    def keep(self, folder: str = "unet", nbytes: int = 2 * NUMBERS) -> bool:
        wanted = self.wanted(folder)
        with self.cache.writing(wanted):
            return self.cache.keep(wanted, NAME, nbytes, write)

    def has(self, folder: str = "unet", **other: str) -> bool:
        entry = self.cache.find(self.wanted(folder, **other))
        if entry is not None:
            entry.file.close()
        return entry is not None


def write(path: Path) -> None:
    save_file({"a": torch.ones(NUMBERS, dtype=torch.bfloat16)}, path)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    for folder in ("unet", "vae", "text_encoder"):
        component = tmp_path / "model" / folder
        component.mkdir(parents=True)
        (component / "config.json").write_text("{}")
        save_file({"a": torch.ones(NUMBERS)}, component / NAME)
    directory = tmp_path / "cache"
    return Shelf(tmp_path / "model", directory, WeightsCache(directory, 5500))


def test_what_was_kept_is_found_with_its_config(shelf: Shelf) -> None:
    assert not shelf.has()
    assert shelf.keep()
    entry = shelf.cache.find(shelf.wanted())
    assert entry is not None
    assert {path.name for path in entry.directory.iterdir()} == {NAME, "config.json", "note.json"}
    assert entry.directory.name.startswith("model.unet.Network-bfloat16.")
    entry.file.close()
    assert not shelf.has("vae")
    assert "1 entries" in repr(shelf.cache)


def touched(component: Path) -> None:
    os.utime(component / NAME, ns=(1, 1))


def longer(component: Path) -> None:
    save_file({"a": torch.ones(NUMBERS + 1)}, component / NAME)


def rewritten(component: Path) -> None:
    """With other content of the same size, and the time of the old one."""
    path = component / NAME
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def in_shards(component: Path) -> None:
    shutil.copy(component / NAME, component / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize("change", [touched, longer, rewritten, in_shards])
def test_what_was_made_of_other_files_is_named_and_made_anew(
    shelf: Shelf, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    shelf.keep()
    change(shelf.model / "unet")
    assert not shelf.has()
    [record] = caplog.records
    assert "model.unet.Network-bfloat16" in record.message
    assert ".safetensors of" in record.message
    assert record.message.endswith("has changed")
    assert shelf.keep()
    assert shelf.has()


def test_another_config_makes_weights_anew(shelf: Shelf) -> None:
    shelf.keep()
    (shelf.model / "unet" / "config.json").write_text('{"a": 1}')
    assert not shelf.has()


def test_what_other_versions_of_the_libraries_made_is_made_anew(shelf: Shelf) -> None:
    shelf.keep()
    assert not shelf.has(made_by="torch 2")


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def flipped(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")


@pytest.mark.parametrize("harm", [cut_short, flipped])
def test_a_damaged_entry_is_named_and_made_anew(
    shelf: Shelf, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    shelf.keep()
    [path] = shelf.directory.glob(f"*/{NAME}")
    harm(path)
    assert not shelf.has()
    assert caplog.records[-1].message.endswith(f"{NAME} was changed after it was written")
    assert shelf.keep()
    assert shelf.has()


@pytest.mark.parametrize("content", [b"", b"{", b'{"source": 1}'])
def test_a_note_that_cannot_be_read_makes_weights_anew(shelf: Shelf, content: bytes) -> None:
    shelf.keep()
    [note] = shelf.directory.glob("*/note.json")
    note.write_bytes(content)
    assert not shelf.has()
    assert shelf.keep()
    assert shelf.has()


def used(shelf: Shelf, *folders: str) -> None:
    """In this order."""
    for second, folder in enumerate(folders):
        [note] = shelf.directory.glob(f"model.{folder}.*/note.json")
        os.utime(note, (second, second))


def test_what_was_not_used_for_longest_leaves(shelf: Shelf) -> None:
    shelf.keep("unet")
    shelf.keep("vae")
    used(shelf, "vae", "unet")
    shelf.keep("text_encoder")
    assert [shelf.has(folder) for folder in ("unet", "vae", "text_encoder")] == [True, False, True]
    files = [path.stat().st_size for path in shelf.directory.glob("*/*")]
    assert sum(files) <= 5500


def test_what_is_used_leaves_last_and_stays_what_it_is(shelf: Shelf) -> None:
    shelf.keep("unet")
    entry = shelf.cache.find(shelf.wanted("unet"))
    assert entry is not None
    mapped = load_file(entry.weights)["a"]
    shelf.keep("vae")
    used(shelf, "unet", "vae")
    shelf.keep("text_encoder")
    assert [shelf.has(folder) for folder in ("unet", "vae")] == [True, False]
    assert WeightsCache(shelf.directory, 3000).keep(shelf.wanted("vae"), NAME, 2000, write)
    assert not shelf.has("unet")
    assert torch.equal(mapped, torch.ones(NUMBERS, dtype=torch.bfloat16))
    entry.file.close()


def test_what_is_larger_than_the_bound_is_not_kept(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    assert shelf.keep("vae")
    assert not shelf.keep(nbytes=5501)
    assert "5501 bytes, and DARKROOM_WEIGHTS_DISK_BYTES is 5500" in caplog.text
    assert shelf.has("vae")


def test_a_full_disk_is_one_warning(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = shutil.disk_usage(shelf.directory)._replace(free=1999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert not shelf.keep()
    [record] = caplog.records
    assert f"{shelf.directory} has 1999 free" in record.message


def test_a_disk_that_is_full_meanwhile_is_one_warning_and_nothing_stays(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    wanted = shelf.wanted()
    with shelf.cache.writing(wanted):
        assert not shelf.cache.keep(wanted, NAME, 4, fails)
    assert "No space left on device" in caplog.text
    assert len(caplog.records) == 1
    assert list(shelf.directory.glob("*/*")) == []


def test_what_a_killed_process_left_is_removed(shelf: Shelf) -> None:
    for left in (f"{shelf.wanted().key}.part", "other.part", "another.0123.gone"):
        (shelf.directory / left).mkdir()
        (shelf.directory / left / NAME).write_bytes(b"half")
    assert shelf.keep()
    assert [path.name for path in shelf.directory.glob("*/")] == [shelf.wanted().key]


def test_of_those_who_want_an_entry_at_once_one_writes_it(shelf: Shelf) -> None:
    written: list[int] = []
    begun = threading.Barrier(4)

    def want(number: int) -> None:
        begun.wait()
        wanted = shelf.wanted()
        with shelf.cache.writing(wanted):
            if not shelf.has():
                assert shelf.cache.keep(wanted, NAME, 2000, write)
                written.append(number)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1


def test_the_lock_ends_with_whoever_held_it(shelf: Shelf) -> None:
    wanted = shelf.wanted()
    with pytest.raises(KeyError), shelf.cache.writing(wanted):
        raise KeyError
    for path in shelf.directory.glob("*.lock"):
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_directory_is_nobody_else_s(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(Misconfigured, match="it has to be user"):
        WeightsCache(tmp_path / "open", 1)
    assert WeightsCache(tmp_path / "new", 1)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_what_will_be_mapped_is_what_was_converted_or_else_the_files_themselves(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_caches", [shelf.cache])
    source, folders = str(shelf.model), ("unet", "vae", "absent")
    own = [shelf.model / folder / NAME for folder in ("unet", "vae")]
    assert sharing.files_to_read(source, folders, "bfloat16") == own
    assert shelf.keep()
    converted = [shelf.directory / shelf.wanted().key / NAME, own[1]]
    assert sharing.files_to_read(source, folders, "bfloat16") == converted
    assert sharing.files_to_read(source, folders, "float32") == own
    monkeypatch.setattr(sharing, "_caches", [])
    assert sharing.files_to_read(source, folders, "bfloat16") == own
    assert sharing.files_to_read("nobody/nothing", folders, "float32") == []
