"""The edges that all benchmark programs share: options, the event loop, what is printed."""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from shared.errors import DarkroomError
from shared.shipped import DEFAULT_MODEL

Results = dict[str, Any]
"""What a program found out: the one JSON object that it prints."""
Cells = list[list[Any]]
"""A table: its titles, then its lines, which may be shorter, of anything that has a text."""
Measure = Callable[["Options"], Coroutine[None, None, Results]]
AddArguments = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What every program takes."""

    model: str
    """Directory or hub id."""
    quick: bool
    """Only see whether it works: too few repetitions for figures to quote."""
    json: bool
    own: argparse.Namespace = field(default_factory=argparse.Namespace)
    """What this program alone takes."""


def parse(
    name: str, about: str, arguments: Sequence[str] | None = None, add: AddArguments | None = None
) -> Options:
    """The options in `arguments`, or on the command line; `add` adds a program's own. Exits if they
    are wrong."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a diffusers directory or a hub id")
    parser.add_argument("--quick", action="store_true", help="a smoke run; no figures to quote")
    if add is not None:
        add(parser)
    found = parser.parse_args(arguments)
    return Options(model=found.model, quick=found.quick, json=found.json, own=found)


def positive_seconds(text: str) -> float:
    """An option's value."""
    if not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: seconds above 0")
    return float(text)


def count_to(most: int) -> Callable[[str], int]:
    """Reads an option's value, from 1 to `most`."""

    def number(text: str) -> int:
        if not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 1 to {most}")
        return int(text)

    return number


def run_program(
    name: str,
    about: str,
    measure: Measure,
    rows: Callable[[Results], Cells],
    add: AddArguments | None = None,
) -> None:
    """Measure and print. `rows` makes a table of the results. `add`: see `parse`."""
    options = parse(name, about, add=add)
    try:
        results = asyncio.run(_until_stopped(measure(options)))
    except (DarkroomError, asyncio.CancelledError, KeyboardInterrupt) as error:
        sys.exit(f"benchmarks.{name}: {str(error) or 'stopped'}")
    report = {"benchmark": name, "quick": options.quick, **results, "machine": machine()}
    if options.json:
        print(json.dumps(report))
    else:
        Console().print(_table(name, rows(report)))


async def _until_stopped(work: Coroutine[None, None, Results]) -> Results:
    """SIGTERM ends it as Ctrl-C does, so that no fleet is left behind."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def say(text: str) -> None:
    """Where a long run stands, on stderr."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, str | int]:
    """Where this ran, in general terms."""
    return {
        "cores": cores(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
    }


def cores() -> int:
    """Those this process may use, and so may the fleet it starts."""
    return len(os.sched_getaffinity(0))


def _table(title: str, rows: Cells) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(rows[0]):
        table.add_column(str(heading), justify="right" if number else "left")
    for row in rows[1:]:
        table.add_row(*map(str, row))
    return table
