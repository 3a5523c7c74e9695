"""Workload files (TOML or JSON) and trace files."""

import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from loadgen.workload.strict import Shown, refuse
from loadgen.workload.trace import Arrival, parse_trace
from loadgen.workload.workload import Workload
from shared.errors import InvalidRequest

MAX_BYTES: Final = 256 * 1024 * 1024
"""Of a file: it is read into memory."""


def load_workload(file: Path) -> Workload:
    """`trace` in the file is another file's path, from the directory that it is in. Raises
    `InvalidRequest` naming the file, the field, its value and what is allowed."""
    data = _parsed(file)
    trace = data.pop("trace", None)
    if trace is not None and not isinstance(trace, str):
        raise InvalidRequest(f"{file}, trace", trace, "the path of a trace file")
    try:
        workload = msgspec.convert(data, Workload)
    except msgspec.ValidationError as error:
        raise refuse(str(file), data, error) from error
    if trace is None:
        return workload
    return msgspec.structs.replace(workload, trace=load_trace(file.parent / trace))


def load_trace(file: Path) -> tuple[Arrival, ...]:
    """Raises `InvalidRequest` naming the file, the line, the field, its value and what is
    allowed."""
    try:
        return parse_trace(_text(file).split("\n"))
    except InvalidRequest as error:
        named = f"{file}, {error.fields['field']}"
        raise InvalidRequest(
            named, Shown(error.fields["value"]), str(error.fields["allowed"])
        ) from error


def _parsed(file: Path) -> dict[str, Any]:
    text = _text(file)
    try:
        if file.suffix == ".toml":
            return tomllib.loads(text)
        if file.suffix == ".json":
            return msgspec.json.decode(text, type=dict[str, Any])
    except (tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        kind = file.suffix.removeprefix(".").upper()
        raise InvalidRequest(str(file), Shown(str(error)), f"one {kind} table") from error
    raise InvalidRequest("--workload", str(file), "a file whose name ends in .toml or .json")


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidRequest(str(file), "its size", f"at most {MAX_BYTES} bytes")
        return file.read_bytes().decode("utf-8-sig")  # bytes: no character becomes a line's end
    except OSError as error:
        raise InvalidRequest("file", str(file), f"one that can be read ({error.strerror})") from (
            error
        )
    except UnicodeDecodeError as error:
        raise InvalidRequest("file", str(file), "text in UTF-8") from error
