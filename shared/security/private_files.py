"""Files and directories that no other user may look into: keys, tokens, arenas."""

import os
import secrets
import stat
from pathlib import Path

from shared.errors import Misconfigured


def read_private(path: Path, what: str) -> bytes:
    """The content of `path`, a file of `what`. Raises `Misconfigured` unless it is a regular file
    of this user that nobody else may read or write."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Misconfigured(f"{what}: {path} cannot be read: {error.strerror}") from error
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Misconfigured(f"{what}: {path} is not a file")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Misconfigured(
                f"{what}: {path} is user {found.st_uid}'s with mode "
                f"{stat.S_IMODE(found.st_mode):o}; it has to be user {os.geteuid()}'s with mode 600"
            )
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` in one step by a file of mode 0600, whatever the umask is."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)
        file.write(content)
        file.flush()
        os.fsync(fd)
    new.replace(path)


def private_directory(directory: Path) -> Path:
    """`directory`, made with mode 0700 if absent, whatever the umask is. Raises `Misconfigured`
    unless it is ours alone."""
    try:
        _make(directory)
        found = directory.lstat()
    except OSError as error:
        raise Misconfigured(
            f"the directory {directory} cannot be made: {error.strerror}; "
            "mount a tmpfs there, or choose another directory"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise Misconfigured(f"the directory {directory} is not a directory (or a link to one)")
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Misconfigured(
            f"the directory {directory} is user {found.st_uid}'s with mode "
            f"{stat.S_IMODE(found.st_mode):o}; it has to be user {os.geteuid()}'s with mode 700"
        )
    return directory


def _make(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return
    directory.chmod(0o700)  # a umask can take away even the owner's own rights
