"""What other users may not look into is closed to them, whatever the umask is."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import Misconfigured
from shared.security.private_files import private_directory, read_private, write_private
from shared.tensors.arena import Arena


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277, 0o777])
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_an_arena_and_its_directory_are_closed_under_any_umask(tmp_path: Path, umask: int) -> None:
    with Arena.create(tmp_path / "arenas", 1, "vae") as arena:
        assert mode(tmp_path / "arenas") == 0o700
        assert mode(arena.path) == 0o600


def test_a_private_file_is_closed_under_any_umask_and_replaced_in_one_step(
    tmp_path: Path, umask: int
) -> None:
    path = tmp_path / "key"
    write_private(path, b"first")
    write_private(path, b"second")
    assert (mode(path), read_private(path, "a key")) == (0o600, b"second")
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("wrong", [0o701, 0o710, 0o707, 0o770, 0o777])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, wrong: int) -> None:
    directory = tmp_path / "arenas"
    directory.mkdir()
    directory.chmod(wrong)
    with pytest.raises(Misconfigured, match=f"with mode {wrong:o}; it has to be user"):
        private_directory(directory)


def test_somebody_elses_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = private_directory(tmp_path / "arenas")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Misconfigured, match=f"is user {os.getuid()}'s with mode 700"):
        private_directory(directory)


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    private_directory(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(Misconfigured, match="is not a directory"):
        private_directory(tmp_path / "link")


@pytest.mark.parametrize("wrong", [0o604, 0o620, 0o640, 0o666])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, wrong: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"x")
    path.chmod(wrong)
    with pytest.raises(Misconfigured, match=f"the nkey: {path} is user .* with mode {wrong:o}"):
        read_private(path, "the nkey")


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, reason in (("link", "cannot be read"), ("pipe", "not a file"), ("no", "No such")):
        with pytest.raises(Misconfigured, match=reason):
            read_private(tmp_path / name, "a key")
