"""`python -m tests.chaos [CASE ...] [--long] [--json FILE]`: harm a fleet, and see what it loses.

Every case runs alone, on a fleet of its own. With `--json`, results are added to those of earlier
runs, and the table shows all of them. The exit status is 1 if anything was lost, left or changed.
"""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.chaos.cases import CASES, Options
from tests.chaos.report import CaseResult, merge, table

WIDTH = 180
"""Columns of the table where no terminal says how many there are."""


def main(
    cases: Annotated[list[str] | None, typer.Argument(help=", ".join(CASES))] = None,
    long: Annotated[bool, typer.Option("--long", help="As often as promised.")] = False,
    stand_ins: Annotated[
        bool, typer.Option("--stand-ins", help="Services without torch: quicker to restart.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Add the results to FILE.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of who is harmed when.")] = 1,
) -> None:
    """Harm a fleet, and see what it loses."""
    if unknown := set(cases or ()) - CASES.keys():
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    logging.basicConfig(level=logging.ERROR)
    results = asyncio.run(_all(cases or list(CASES), Options(long, stand_ins, seed), json_file))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table(merge(json_file, ()) if json_file else results))
    sys.exit(any(not result.passed for result in results))


async def _all(names: list[str], options: Options, json_file: Path | None) -> list[CaseResult]:
    results = []
    for name in names:
        print(f"chaos: {name}: {CASES[name].about}", file=sys.stderr, flush=True)
        result = await CASES[name].run(name, options)
        results.append(result)
        print(f"chaos: {name}: {result.verdict} after {result.seconds:.0f} s", file=sys.stderr)
        for line in result.troubles():
            print(f"chaos: {name}: {line}", file=sys.stderr, flush=True)
        if json_file is not None:
            merge(json_file, [result])
    return results


if __name__ == "__main__":
    typer.run(main)
