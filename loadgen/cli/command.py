"""What `darkroom load` does once it knows what is wanted."""

import asyncio
import signal
from pathlib import Path

import typer
from rich.console import Console

from loadgen.cli.results import check_writable, render_found, write_results
from loadgen.report.page.table import render_table
from loadgen.runs.plan import Plan
from loadgen.runs.session import Session
from shared.host.command_exits import FAILED, INTERRUPTED, run


def carry_out(plan: Plan, json_file: Path | None, html_file: Path | None) -> None:
    """Run `plan` and write what it found; a Ctrl-C ends it with the report so far, and a second
    one without. Raises `typer.Exit`, with 130 after a Ctrl-C and 1 if nothing was answered."""
    errors = Console(stderr=True)
    out = errors if str(json_file) == "-" else Console()
    for file in (json_file, html_file):
        check_writable(file)
    session = Session(plan, errors)
    run(_until_stopped(session))
    if session.found is not None:
        out.print(render_found(session.found))
    if session.report is not None:
        out.print(render_table(session.report))
    write_results(session, json_file, html_file)
    if session.stop.is_set():
        raise typer.Exit(INTERRUPTED)
    if session.report is not None and session.report.overall.done == 0:
        raise typer.Exit(FAILED)


async def _until_stopped(session: Session) -> None:
    """The first signal asks the session to stop, the next one cancels it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def signalled() -> None:
        if session.stop.is_set() and task is not None:
            task.cancel()
        session.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    await session.run()
