"""Images as command lines and workloads name them; controls: `NAME=FILE` or `NAME=FILE:SCALE`."""

from collections.abc import Sequence
from pathlib import Path

from shared.errors import InvalidRequest
from shared.messages import ControlChoice


def read_controls(texts: Sequence[str], option: str) -> tuple[ControlChoice, ...]:
    """Choices with the images that they name. Raises `InvalidRequest` about `option`."""
    return tuple(_read(text, option) for text in texts)


def read_image(file: Path, option: str) -> bytes:
    """Raises `InvalidRequest` about `option`."""
    try:
        return file.read_bytes()
    except OSError as error:
        allowed = f"a file that can be read ({error.strerror})"
        raise InvalidRequest(option, str(file), allowed) from error


def _read(text: str, option: str) -> ControlChoice:
    name, _, place = text.partition("=")
    if not name or not place:
        allowed = "NAME=FILE, or NAME=FILE:SCALE such as edges=house.png:0.8"
        raise InvalidRequest(option, text, allowed)
    file, scale = _file_and_scale(place)
    try:
        image = file.read_bytes()
    except OSError as error:
        raise InvalidRequest(option, text, f"a file that can be read ({error.strerror})") from error
    return ControlChoice(model=name, image=image, scale=scale)


def _file_and_scale(place: str) -> tuple[Path, float]:
    """What is behind the last colon is a scale if it is a number, else a part of the name."""
    file, _, last = place.rpartition(":")
    try:
        scale = float(last)
    except ValueError:
        return Path(place), 1.0
    return (Path(file), scale) if file else (Path(place), 1.0)
