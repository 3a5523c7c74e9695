"""`python -m shared.process.settings_page`: prints `docs/settings.md`, made of `Settings`
itself."""

import ast
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from shared.byte_size import ByteSize
from shared.config import ReadBy, Settings
from shared.shipped import DEFAULT_MODEL

HEAD: Final = """\
# Settings

(`make settings` writes this page from `shared/config.py`.)

Every process reads its settings from environment variables when it starts. A value that is of no
use ends the start with one sentence that names the variable, the value and what is allowed.
`darkroom up` hands its own environment on to the services that it starts. `DARKROOM_NATS_URL`,
`DARKROOM_NATS_SYNC`, `DARKROOM_CREDENTIALS`, `DARKROOM_HTTP_HOST`, `DARKROOM_HTTP_PORT` and, unless
it is given, `DARKROOM_THREADS` are what it chooses itself, by its options and the machine.

"Read by" names the services that look at a setting; `fleet` is the command line.

"""
NAMES: Final = {
    str: "text",
    Path: "path",
    int: "whole number",
    float: "number",
    ByteSize: "bytes, with or without a unit",
}
"""Of types."""
COLUMNS: Final = ("variable", "type", "unit", "default", "what it does", "read by")
OTHERS: Final = {
    "DARKROOM_KEYS": "The directory that `darkroom keys` made; the same as `--keys` of `darkroom "
    "up`. [Security](security.md#keys) says what is in it.",
    "DARKROOM_NATS_PORT": "The port of the bus of `darkroom up`; the same as `--nats-port`. 0: a "
    "free one.",
    "DARKROOM_STATE_DIR": "The directory in which `darkroom up` notes where its fleet is and keeps "
    "the streams of the bus. The other commands find the fleet there. By default the note is in "
    "`$XDG_RUNTIME_DIR/darkroom`, the streams in `$XDG_STATE_HOME/darkroom/nats`.",
    "DARKROOM_TOKEN": "The bearer token that `darkroom load` sends to a gateway.",
    "DARKROOM_LOG_FORMAT": "`json` or `text`: how services write their logs. By default text on a "
    "terminal, else JSON.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Where traces are sent (OTLP over HTTP). Without it there are "
    "none. The other standard `OTEL_*` variables hold too, but for the name of the service.",
    "CUDA_VISIBLE_DEVICES": "The GPUs that `darkroom up` shares out among its denoisers.",
}
"""Variables that are no field of `Settings`, and what they do."""


def page() -> str:
    others = [f"| `{name}` | {what} |" for name, what in OTHERS.items()]
    return "\n".join(
        [
            HEAD + _row(COLUMNS),
            _row(("---",) * len(COLUMNS)),
            *map(_row, rows()),
            "\n## Other variables\n\n| variable | what it does |\n| --- | --- |",
            *others,
            "",
        ]
    )


def rows() -> Iterator[tuple[str, ...]]:
    """What the page tells of each setting, in the order of `COLUMNS`."""
    hints, explained = get_type_hints(Settings, include_extras=True), _docstrings()
    for field in msgspec.structs.fields(Settings):
        kind, *notes = get_args(hints[field.name])
        metas = [note for note in notes if isinstance(note, msgspec.Meta)]
        units = [(meta.extra or {}).get("unit", "") for meta in metas]
        [readers] = (note.services for note in notes if isinstance(note, ReadBy))
        yield (
            f"`DARKROOM_{field.name.upper()}`",
            _type(kind, metas),
            " ".join(units),
            _default(field.default, units),
            explained[field.name],
            ", ".join(readers),
        )


def _docstrings() -> dict[str, str]:
    """The text below each field, on one line."""
    [definition] = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(explained))),
            ):
                found[name] = " ".join(explained.split())
    return found


def _type(kind: Any, metas: list[msgspec.Meta]) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"`{word}`" if word else "empty" for word in get_args(kind))
    name = NAMES[kind]
    return ", ".join([name, *(bound for meta in metas for bound in _bounds(meta))])


def _bounds(meta: msgspec.Meta) -> Iterator[str]:
    for words, bound in (("above", meta.gt), ("at least", meta.ge), ("at most", meta.le)):
        if bound is not None:
            yield f"{words} {bound:,.0f}"


def _default(value: object, units: list[str]) -> str:
    """Without what differs between machines and users."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = text.replace(str(Path(DEFAULT_MODEL).parent), "pocket/models")
    if isinstance(value, Path) and text.endswith(own := f"-{os.getuid()}"):
        text = text.removesuffix(own) + "-UID"
    if units == ["bytes"] and value:
        return f"`{text}` ({_size(int(text))})"
    return f"`{text}`" if text else "empty"


def _size(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size % 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(page(), end="")
