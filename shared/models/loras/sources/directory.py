"""Where the adapters lie that requests may name: files `<name>.safetensors` in some directories.

No torch here: planners and gateways look names up. A file that is put there is served from then on.
A link is what it leads to, wherever that is: who may write into the directories decides what is
served, and no request leads out of them.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import InvalidRequest

SHOWN: Final = 20
"""Names that an error lists."""
SUFFIX: Final = ".safetensors"
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories of control characters, halves of characters, and ends of lines."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """`<name>.json` beside an adapter, as `darkroom calibrate-lora` writes it: of `steps` steps,
    the first `late_steps` change little without it (the latents' cosine stays above `cosine`)."""

    late_steps: int
    steps: int
    cosine: float
    prompts: int

    def bound(self, steps: int) -> int:
        """`late_steps` for an image of so many steps."""
        return self.late_steps * steps // max(1, self.steps)


class LoraDirectory(msgspec.Struct, frozen=True):
    """`directories` in order of precedence; those that do not exist hold nothing."""

    directories: tuple[str, ...] = ()

    def find(self, name: str, field: str = "loras") -> Path:
        """The file of adapter `name`. Raises `InvalidRequest` about `field` if there is none."""
        for directory in self.directories if is_name(name) else ():
            path = Path(directory) / f"{name}{SUFFIX}"
            if found := path if _is_adapter(path) else _spelt(name, directory):
                return found
        raise InvalidRequest(field, name, _allowed(self.names()))

    def below(self, path: str, field: str = "loras") -> Path:
        """The file `path`, relative to one of the directories or absolute, if that is where it is;
        `..` is taken away before links are followed. Raises `InvalidRequest` about `field` if it is
        not."""
        for directory in self.directories:
            for root in (os.path.abspath(directory), os.path.realpath(directory)):
                found = Path(os.path.normpath(os.path.join(root, path)))
                if found.is_relative_to(root) and _is_adapter(found):
                    return found
        raise InvalidRequest(field, path, f"a {SUFFIX} file below the server's LoRA directories")

    def names(self) -> list[str]:
        """What `find` knows, sorted."""
        return sorted({name for directory in self.directories for name, _ in _files(directory)})


def is_name(text: str) -> bool:
    """Whether a file beside others can be called so: in any script, but no path, and not hidden."""
    unprintable = any(unicodedata.category(character) in _UNPRINTABLE for character in text)
    return bool(text) and not text.startswith(".") and "/" not in text and not unprintable


def _files(directory: str) -> Iterator[tuple[str, Path]]:
    """The adapters in a directory, by name; `.safetensors` before other spellings of it."""
    try:
        paths = sorted(Path(directory).iterdir(), key=lambda path: path.suffix != SUFFIX)
    except OSError:  # it is not there, or not for us to read
        return
    seen = set()
    for path in paths:
        if is_name(path.stem) and path.stem not in seen and _is_adapter(path):
            seen.add(path.stem)
            yield path.stem, path


def _spelt(name: str, directory: str) -> Path | None:
    """The adapter `name`, however its file is spelt: file systems differ in whether an accent is
    one character with its letter."""
    files = dict(_files(directory))
    composed = {unicodedata.normalize("NFC", known): path for known, path in files.items()}
    return files.get(name) or composed.get(unicodedata.normalize("NFC", name))


def _is_adapter(path: Path) -> bool:
    try:
        return path.suffix.lower() == SUFFIX and path.is_file()
    except (OSError, ValueError):  # too long, a zero byte
        return False


def calibration(file: Path) -> Calibration | None:
    """What is known of the adapter in `file`; None if it was not calibrated, or not legibly."""
    try:
        return msgspec.json.decode(file.with_suffix(".json").read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):
        return None


def _allowed(names: Sequence[str]) -> str:
    if not names:
        return "nothing, for this server has no LoRAs"
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"one of {', '.join(names[:SHOWN])}{more}"
