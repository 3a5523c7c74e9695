"""What `darkroom dead` prints: for people, and as JSON. Prompts and messages are text from others,
so nothing in them may steer the terminal."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from services.fleet.dead_letters.actions import Retried, Standing
from services.fleet.dead_letters.letters import Headline, request_fields
from shared.jobs.dead import DeadLetter
from shared.jobs.record import JobRecord, NodeState
from shared.messages import Failure

LEAST_MESSAGE: Final = 20
"""Columns for the message, however narrow the terminal."""
WIDE: Final = 120
"""Columns from which on everything is shown of a letter, and not only the most important."""

_COLUMNS: Final = ("job", "given up", "model", "node", "code", "attempts", "kills")
_NARROW: Final = ("job", "code")
_WORDS: Final[dict[Standing, str]] = {
    "accepted": "runs again",
    "queued": "waits for a planner",
    "refused": "was refused, and its letter kept,",
    "kept": "could not be submitted",
    "done": "is done",
    "failed": "failed again",
    "cancelled": "was cancelled",
}


def as_json(item: object) -> str:
    """One line. Bytes are in base64."""
    return msgspec.json.encode(item).decode()


def as_table(headlines: Sequence[Headline], width: int) -> Table:
    """For `width` columns. Messages are cut to what is left for them, job ids never."""
    names = _COLUMNS if width >= WIDE else _NARROW
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=name in ("job", "given up"), overflow="fold")
    table.add_column("message", no_wrap=True, overflow="ellipsis", ratio=1, min_width=LEAST_MESSAGE)
    for line in headlines:
        cells = _cells(line)
        table.add_row(*(Text(printable(cells[name])) for name in (*names, "message")))
    return table


def _cells(line: Headline) -> dict[str, str]:
    return {
        "job": line.job_id,
        "given up": when(line.buried_at),
        "model": line.model,
        "node": line.node,
        "code": line.code,
        "attempts": str(line.attempts or ""),
        "kills": str(line.kills) if line.attempts else "",
        "message": line.message,
    }


def as_lines(letter: DeadLetter) -> Iterator[str]:
    """Everything in the letter that helps to find out what went wrong."""
    yield f"job       {letter.job_id}"
    if letter.record is not None:
        yield f"accepted  {when(letter.record.created_at)}"
    yield f"given up  {when(letter.buried_at)}"
    yield f"because   {_failure(letter.failure)}"
    yield from _fields(letter.failure)
    yield "request"
    yield from _request(letter)
    if letter.record is not None:
        yield "nodes"
        yield from _nodes(letter.record)


def retried(retried: Retried) -> str:
    """One line."""
    new = f" as {retried.new_job_id}" if retried.new_job_id else ""
    reason = f": {printable(retried.message)}" if retried.message else ""
    return f"{retried.job_id} {_WORDS[retried.standing]}{new}{reason}"


def when(at: float) -> str:
    """Local time; empty for 0, which stands for never."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def printable(text: str) -> str:
    """`text` on one line; what no terminal should be sent is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _failure(failure: Failure) -> str:
    again = "another try may help" if failure.retryable else "another try was not expected to help"
    return f"{printable(failure.code)}: {printable(failure.message)} ({again})"


def _fields(failure: Failure) -> Iterator[str]:
    for name, value in failure.fields.items():
        yield f"          {printable(name)}: {_value(value)}"


def _request(letter: DeadLetter) -> Iterator[str]:
    fields = request_fields(letter)
    if not fields:
        yield f"  {len(letter.submission)} bytes that are no MessagePack map"
    for name, value in fields.items():
        if value is not None:
            yield f"  {printable(name)}: {_value(value)}"


def _value(value: object) -> str:
    return printable(str(_without_bytes(value)))


def _without_bytes(value: object, depth: int = 3) -> object:
    """`value`, which may be what a submission holds, with sizes in place of images."""
    match value:
        case bytes():
            return f"{len(value)} bytes"
        case list() | dict() if not depth:
            return "…"
        case list():
            return [_without_bytes(item, depth - 1) for item in value]
        case dict():
            return {key: _without_bytes(item, depth - 1) for key, item in value.items()}
    return value


def _nodes(record: JobRecord) -> Iterator[str]:
    for state in record.nodes.values():
        yield f"  {state.node.name}: {', '.join(_standing(state))}"
        for number, cause in enumerate(state.causes, start=1):
            yield f"    attempt {number} ended: {_failure(cause)}"


def _standing(state: NodeState) -> Iterator[str]:
    yield "unfinished" if state.status == "ready" else state.status
    yield f"attempt {state.attempt}"
    if state.status != "waiting":
        yield f"lease {state.lease}"
    if state.losses:
        yield f"{state.losses} leases lost since the last progress"
    if state.kills:
        yield f"{state.kills} of them while it ran alone"
    if state.checkpoint is not None:
        yield f"checkpoint at step {state.checkpoint.step}"
    if state.worker:
        yield f"done by {state.worker}"
