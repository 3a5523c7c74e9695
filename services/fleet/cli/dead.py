"""`darkroom dead ...`: wiring only; the work is in `actions.py`, the words are in `report.py`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from services.fleet.access.admin_bus import bus_at
from services.fleet.cli.options import Url
from services.fleet.dead_letters import actions, report
from shared.errors import InvalidRequest
from shared.host.command_exits import FAILED, exit_codes, run
from shared.jobs.dead import DeadLetter

app = typer.Typer(
    help="Jobs that were given up: look at them, try them again, or forget them.",
    no_args_is_help=True,
)

NAME: Final = "darkroom-dead"
"""Of its connections to the bus."""
NONE: Final = "There are no dead letters."
FILE_WIDTH: Final = 200
"""Columns of a table that goes to a file or another program."""

Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys", metavar="DIR", envvar="DARKROOM_KEYS", help="What `darkroom keys` made."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per job and line.")]
Jobs = Annotated[list[str] | None, typer.Argument(metavar="JOB...", help="Ids of jobs.")]
All = Annotated[bool, typer.Option("--all", help="Every job that has a dead letter.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, at most.")] = 50,
    code: Annotated[str | None, typer.Option(help="Only failures with this code.")] = None,
    json_output: Json = False,
    url: Url = None,
    keys: Keys = None,
) -> None:
    """Which jobs were given up, the newest first."""

    async def look() -> actions.Headlines:
        async with bus_at(url, NAME, keys) as bus:
            return await actions.headlines(bus, limit, code)

    with exit_codes(Console(stderr=True)):
        found = run(look())
    if json_output:
        for line in found.newest:
            print(report.as_json(line))
        return
    if not found.newest:
        print(f"There are no dead letters with the code {code!r}." if code else NONE)
        return
    _print_table(found)


@app.command()
def show(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")],
    json_output: Annotated[bool, typer.Option("--json", help="The whole letter.")] = False,
    url: Url = None,
    keys: Keys = None,
) -> None:
    """Why a job was given up: what was asked for, and what went wrong where."""

    async def look() -> DeadLetter:
        async with bus_at(url, NAME, keys) as bus:
            return await actions.letter_of(bus, job)

    with exit_codes(Console(stderr=True)):
        letter = run(look())
    print(report.as_json(letter) if json_output else "\n".join(report.as_lines(letter)))


@app.command()
def retry(
    jobs: Jobs = None,
    everything: All = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until the new jobs have ended.")] = False,
    json_output: Json = False,
    url: Url = None,
    keys: Keys = None,
) -> None:
    """Submit jobs anew, each under a new id; what became of the old ones stands."""

    def tell(retried: actions.Retried) -> None:
        print(report.as_json(retried) if json_output else report.retried(retried))

    with exit_codes(Console(stderr=True)):
        chosen = _chosen(jobs, everything)
        done = run(_retry(chosen, url, keys, wait, tell))
    if not done and not json_output:
        print(NONE)
    if not all(retried.well for retried in done):
        raise typer.Exit(FAILED)


@app.command()
def drop(
    jobs: Jobs = None,
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_output: Json = False,
    url: Url = None,
    keys: Keys = None,
) -> None:
    """Forget jobs for good."""
    with exit_codes(Console(stderr=True)):
        named = run(_letters(_chosen(jobs, everything), url, keys))
        if everything and named and not yes:
            typer.confirm(f"Forget {len(named)} jobs for good?", abort=True, err=True)
        run(_drop(named, url, keys))
    if not named and not json_output:
        print(NONE)
    for job in named:
        print(report.as_json({"job_id": job}) if json_output else f"{job} forgotten")


def _chosen(jobs: Sequence[str] | None, everything: bool) -> Sequence[str] | None:
    """The ids that were given; None: all. Raises `InvalidRequest`."""
    if bool(jobs) == everything:
        raise InvalidRequest("JOB", " ".join(jobs or ()), "one or more job ids, or --all alone")
    return jobs or None


async def _letters(
    chosen: Sequence[str] | None, url: str | None, keys: Path | None
) -> Sequence[str]:
    """Each id once. Raises `DeadLetterUnusable` for one that has no letter."""
    async with bus_at(url, NAME, keys) as bus:
        return await actions.having_letters(bus, chosen)


async def _drop(jobs: Sequence[str], url: str | None, keys: Path | None) -> None:
    async with bus_at(url, NAME, keys) as bus:
        for job in jobs:
            await actions.drop(bus, job)


async def _retry(
    chosen: Sequence[str] | None,
    url: str | None,
    keys: Path | None,
    wait: bool,
    tell: Callable[[actions.Retried], None],
) -> Sequence[actions.Retried]:
    """What became of each; `tell` hears it as soon as it is known."""
    async with bus_at(url, NAME, keys) as bus:
        done: list[actions.Retried] = []
        async for retried in actions.retry_all(bus, await actions.having_letters(bus, chosen)):
            done.append(retried)
            if not wait:
                tell(retried)
        for index, retried in enumerate(done if wait else ()):
            done[index] = await actions.ended(bus, retried)
            tell(done[index])
    return done


def _print_table(found: actions.Headlines) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, FILE_WIDTH))
    console.print(report.as_table(found.newest, console.width))
    if len(found.newest) < found.total:
        print(f"the newest {len(found.newest)} of {found.total}; --limit shows more")
