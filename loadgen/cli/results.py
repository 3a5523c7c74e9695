"""What is left of a run: files, and the table of a search."""

import os
import sys
from pathlib import Path

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadgen.report.page.html import render_html
from loadgen.runs.find_rate import Found
from loadgen.runs.session import Session
from shared.errors import InvalidRequest


def check_writable(file: Path | None) -> None:
    """Raises `InvalidRequest`, so that nothing is measured that could not be saved."""
    if file is None or str(file) == "-":
        return
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK) or file.is_dir():
        raise InvalidRequest("file", str(file), "a file in a directory you may write to")


def write_results(session: Session, json_file: Path | None, html_file: Path | None) -> None:
    """The report as JSON (`-`: to stdout) and as a page. A search's JSON has `found` and `report`,
    the run at the highest rate that passed."""
    if json_file is not None and (data := _json(session)) is not None:
        if str(json_file) == "-":
            sys.stdout.buffer.write(data + b"\n")
            sys.stdout.flush()
        else:
            json_file.write_bytes(data + b"\n")
    if html_file is not None and session.report is not None:
        html_file.write_text(render_html(session.report), encoding="utf-8")


def _json(session: Session) -> bytes | None:
    if session.found is not None:
        both = {"found": session.found, "report": session.report}
        return msgspec.json.format(msgspec.json.encode(both))
    if session.report is None:
        return None
    return msgspec.json.format(msgspec.json.encode(session.report))


def render_found(found: Found) -> RenderableType:
    """Every rate that was tried, and what follows from it."""
    table = Table("requests/s", "trials", "in time", "share", "95% interval", box=box.SIMPLE_HEAD)
    for column in table.columns:
        column.justify = "right"
    for level in found.levels:
        best = level.rate == found.rate
        table.add_row(
            f"{level.rate:.3f}",
            str(level.trials),
            f"{level.met}/{level.of}",
            f"{level.share:.1%}",
            f"{level.low:.1%} to {level.high:.1%}",
            style="bold" if best else None,
        )
    return Group(table, Text(in_words(found), style="bold"))


def in_words(found: Found) -> str:
    if not found.rate:
        return f"no rate that was tried keeps {found.share:.0%} in time"
    high = "not tried" if found.high is None else f"{found.high:.3f}/s"
    low = "none" if not found.low else f"{found.low:.3f}/s"
    return (
        f"{found.rate:.3f} requests/s keep {found.share:.0%} in time (95% sure: good at {low}, "
        f"too much at {high})"
    )
