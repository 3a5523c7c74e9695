"""Weights as this host's processes have them in memory, on its disk: converted once for all.

    <key>/          whole: config.json, the weights as one file, and note.json, whose modification
                    time is when it was last wanted
    <key>.part/     being written; void once its writer is gone
    <n>.lock        held by who writes an entry whose key has this number

An entry has its name when it is whole. Whoever maps its weights has a shared lock on them, so that
entries which nobody uses leave first; a file that is removed while it is mapped stays what it is
for those who have it.
"""

import contextlib
import fcntl
import glob
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from shared.models.weights.component import CONFIG, Component, FileState
from shared.security.private_files import private_directory

FORMAT: Final = 1
"""Of entries; others are written again."""
_NOTE: Final = "note.json"
_PART: Final = ".part"
_GONE: Final = ".gone"
_LOCKS: Final = 16

log = logging.getLogger(__name__)


class _Note(msgspec.Struct, frozen=True):
    """`made_of`: the component's files when it was read; `made_by`: by these versions; `weights`:
    the entry's own file, as it was written."""

    source: str
    made_of: tuple[FileState, ...]
    made_by: str
    weights: FileState
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Wanted:
    """A component in one form. `form`: its dtype and layout, in a word; `made_by`: what decides
    beside the files how they are read."""

    component: Component
    state: tuple[FileState, ...]
    form: str
    made_by: str

    @property
    def key(self) -> str:
        """Readable, and no other component's."""
        digest = hashlib.sha256(f"{self.component.directory}\n{self.form}".encode()).hexdigest()
        return f"{_called(self.component)}.{self.form}.{digest[:16]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """`directory` has the component in the wanted form; its weights are in use until `file` is
    closed."""

    directory: Path
    weights: Path
    file: BinaryIO = field(repr=False)


def _called(component: Component) -> str:
    place = component.directory
    return f"{place.parent.name[:64]}.{place.name[:64]}"


class _Found(NamedTuple):
    used: float
    nbytes: int
    key: str


class WeightsCache:
    """A directory of this user's alone with at most `max_bytes`, but for what is being written."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Raises `Misconfigured` unless the directory is, or can be made, ours alone."""
        self.directory = self._directory = private_directory(directory)
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        found = self._entries()
        held = sum(one.nbytes for one in found)
        return f"<WeightsCache {len(found)} entries, {held}/{self._max_bytes}>"

    def find(self, wanted: Wanted) -> Entry | None:
        """Its entry, which counts as used now. One that is damaged, or was made of other files, is
        named in a warning, and None."""
        directory = self._directory / wanted.key
        try:
            note = msgspec.json.decode((directory / _NOTE).read_bytes(), type=_Note)
            weights = directory / note.weights.name
            file = weights.open("rb")
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning(
                "converted weights %s cannot be read, and are made anew: %s", wanted.key, error
            )
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if reason := _unfit(note, wanted, weights):
            log.warning("converted weights %s are made anew: %s", wanted.key, reason)
            file.close()
            return None
        with contextlib.suppress(OSError):
            os.utime(directory / _NOTE)
        return Entry(directory, weights, file)

    def converted(self, component: Component, dtype: str) -> Path | None:
        """The weights of the entry of `component` in torch's `dtype` that was wanted last; None if
        there is none. Nobody has said yet that they are what the component's files are now."""
        found: list[tuple[float, Path]] = []
        for note in self._directory.glob(f"{glob.escape(_called(component))}.*/{_NOTE}"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                said = msgspec.json.decode(note.read_bytes(), type=_Note)
                forms = note.parent.name.split(".")[-2].split("-")
                if said.source == str(component.directory) and dtype in forms:
                    found.append((note.stat().st_mtime, note.parent / said.weights.name))
        return max(found, default=(0.0, None))[1]

    @contextlib.contextmanager
    def writing(self, wanted: Wanted) -> Iterator[None]:
        """Within, nobody else writes this entry; who does is waited for."""
        with self._lock(wanted.key).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def keep(self, wanted: Wanted, name: str, nbytes: int, write: Callable[[Path], None]) -> bool:
        """Have `write` write the weights, of some `nbytes`, to the path that it is given, whose
        file is called `name`. To be called within `writing`. False, and a warning, if there is no
        room for them, or they cannot be written."""
        if nbytes > self._max_bytes:
            return self._not_kept(
                wanted,
                f"they take {nbytes} bytes, and DARKROOM_WEIGHTS_DISK_BYTES is {self._max_bytes}",
            )
        part = self._directory / f"{wanted.key}{_PART}"
        try:
            self._make_room(nbytes, but=wanted.key)
            if (free := shutil.disk_usage(self._directory).free) < nbytes:
                return self._not_kept(
                    wanted, f"they take {nbytes} bytes, and {self._directory} has {free} free"
                )
            shutil.rmtree(part, ignore_errors=True)  # of one that was killed
            part.mkdir(mode=0o700)
            shutil.copyfile(wanted.component.directory / CONFIG, part / CONFIG)
            write(part / name)
            self._finish(wanted, part, name)
        except Exception as error:  # safetensors has errors of its own
            return self._not_kept(wanted, str(error))
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return True

    def _finish(self, wanted: Wanted, part: Path, name: str) -> None:
        for file in (part / name, part / CONFIG):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        note = _Note(
            source=str(wanted.component.directory),
            made_of=wanted.state,
            made_by=wanted.made_by,
            weights=FileState.of(part / name),
        )
        (part / _NOTE).write_bytes(msgspec.json.encode(note))
        self._remove(wanted.key)
        part.rename(self._directory / wanted.key)

    def _not_kept(self, wanted: Wanted, reason: str) -> bool:
        log.warning(
            "the weights of %s (%s) are not shared with other processes: %s",
            wanted.component.directory,
            wanted.form,
            reason,
        )
        return False

    def _make_room(self, nbytes: int, but: str) -> None:
        """Least recently used entries leave, and those that somebody maps after all others."""
        others = [one for one in self._entries() if one.key != but]
        held = sum(one.nbytes for one in others)
        for _, one in sorted((self._in_use(one.key), one) for one in others):
            if held + nbytes <= self._max_bytes:
                break
            self._remove(one.key)
            held -= one.nbytes
        self._sweep(but)

    def _entries(self) -> list[_Found]:
        """What leaves meanwhile is left out."""
        found = []
        for note in self._directory.glob(f"*/{_NOTE}"):
            if note.parent.suffix in (_PART, _GONE):
                continue
            with contextlib.suppress(OSError):
                files = [file.stat().st_size for file in note.parent.iterdir()]
                found.append(_Found(note.stat().st_mtime, sum(files), note.parent.name))
        return found

    def _in_use(self, key: str) -> bool:
        for file in (self._directory / key).glob("*.safetensors"):
            with contextlib.suppress(FileNotFoundError), file.open("rb") as weights:
                if not _locked(weights):
                    return True
        return False

    def _remove(self, key: str) -> None:
        """At once for everybody, whoever has it mapped."""
        gone = self._directory / f"{key}.{secrets.token_hex(4)}{_GONE}"
        with contextlib.suppress(FileNotFoundError):
            (self._directory / key).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _sweep(self, key: str) -> None:
        """Remove what killed processes left. The lock for `key` is ours."""
        for gone in self._directory.glob(f"*{_GONE}"):
            shutil.rmtree(gone, ignore_errors=True)
        for part in self._directory.glob(f"*{_PART}"):
            path = self._lock(part.name.removesuffix(_PART))
            with path.open("wb") as lock:
                if path == self._lock(key) or _locked(lock):
                    shutil.rmtree(part, ignore_errors=True)

    def _lock(self, key: str) -> Path:
        number = int(hashlib.sha256(key.encode()).hexdigest(), 16) % _LOCKS
        return self._directory / f"{number}.lock"


def _unfit(note: _Note, wanted: Wanted, weights: Path) -> str:
    """Why an entry does not serve; empty if it does."""
    if note.format != FORMAT or note.made_by != wanted.made_by:
        return f"they were made by {note.made_by}, here is {wanted.made_by}"
    if changed := sorted({one.name for one in set(note.made_of) ^ set(wanted.state)}):
        return f"{', '.join(changed)} of {note.source} has changed"
    if FileState.of(weights) != note.weights:
        return f"{weights.name} was changed after it was written"
    return ""


def _locked(file: BinaryIO) -> bool:
    """Whether nobody else had a lock on `file`, which is ours alone now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
