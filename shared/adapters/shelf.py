"""Where the adapters lie that requests may name: files `<name>.safetensors` in some directories.

No torch here: planners and gateways look names up. A file that is put there is served from then on.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import InvalidRequest

SHOWN: Final = 20
"""Names that an error lists."""
SUFFIX: Final = ".safetensors"
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""So that no name leads out of the directories."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """`<name>.json` beside an adapter, as `darkroom calibrate-lora` writes it: of `steps` steps,
    the first `late_steps` change little without it (the latents' cosine stays above `cosine`)."""

    late_steps: int
    steps: int
    cosine: float
    prompts: int

    def bound(self, steps: int) -> int:
        """`late_steps` for a picture of so many steps."""
        return self.late_steps * steps // max(1, self.steps)


class Shelf(msgspec.Struct, frozen=True):
    """`directories` in order of precedence; those that do not exist hold nothing."""

    directories: tuple[str, ...] = ()

    def find(self, name: str, field: str = "loras") -> Path:
        """The file of adapter `name`. Raises `InvalidRequest` about `field` if there is none."""
        if NAME.fullmatch(name):
            for directory in self.directories:
                path = Path(directory) / f"{name}{SUFFIX}"
                if path.is_file():
                    return path
        raise InvalidRequest(field, name, _allowed(self.names()))

    def below(self, path: str, field: str = "loras") -> Path:
        """The file `path`, relative to one of the directories or absolute, if that is where it is
        in the end, links followed. Raises `InvalidRequest` about `field` if it is not."""
        for directory in self.directories if path.endswith(SUFFIX) else ():
            try:
                root = Path(directory).resolve()
                found = (root / path).resolve()
                if found.is_relative_to(root) and found.suffix == SUFFIX and found.is_file():
                    return found
            except (OSError, ValueError, RuntimeError):  # too long, a zero byte, links in a circle
                continue
        raise InvalidRequest(field, path, f"a {SUFFIX} file below the server's LoRA directories")

    def names(self) -> list[str]:
        """What `find` knows, sorted."""
        paths = [path for d in self.directories for path in Path(d).glob(f"*{SUFFIX}")]
        return sorted({path.stem for path in paths if NAME.fullmatch(path.stem) and path.is_file()})


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
