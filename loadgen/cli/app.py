"""`darkroom load`, and `python -m loadgen`. Wiring only."""

import msgspec
import typer
from rich.console import Console

from loadgen.cli.combinations import check_combinations
from loadgen.cli.options import (
    LimitOptions,
    LoadOptions,
    LoopOptions,
    ResultOptions,
    ServerOptions,
)
from loadgen.cli.workload import fields_of, rates_of, workload_of
from loadgen.report.statistics.slo import parse_slo
from loadgen.runs.find_rate import Search
from loadgen.runs.plan import Plan
from loadgen.targets.choose import TargetOptions, chosen
from loadgen.workload.controls import read_all
from shared.errors import InvalidRequest
from shared.host.command_exits import exit_codes
from shared.host.command_options import with_option_groups


@with_option_groups
def load(
    server: ServerOptions,
    options: LoadOptions,
    loop: LoopOptions,
    results: ResultOptions,
    limits: LimitOptions,
) -> None:
    """Send requests to a server at the times that were planned, and report what became of them."""
    with exit_codes(Console(stderr=True)):
        target = _target(server)
        check_combinations(options, loop.users)
        search = _search(results, loop, options.rate)
        if search is not None:
            options = msgspec.structs.replace(options, rate=None)
        workload = workload_of(options)
        read_all(workload)
        plan = Plan(
            target=target,
            workload=workload,
            slo=parse_slo(results.slo),
            users=loop.users,
            think=loop.think,
            limits=limits.limits,
            search=search,
        )
        from loadgen.cli.command import carry_out  # other commands need not wait for its imports

        carry_out(plan, results.json_file, results.html_file)


def _target(server: ServerOptions) -> TargetOptions:
    return chosen(
        server.target,
        server.url,
        api_key=server.api_key,
        also=fields_of(server.also or ()),
        response_format=server.response_format,
    )


def _search(results: ResultOptions, loop: LoopOptions, rate: str | None) -> Search | None:
    """None without `--find-rate`. Raises `InvalidRequest` for options that contradict it."""
    if not results.find:
        return None
    if loop.users is not None:
        raise InvalidRequest(
            "--users", loop.users, "no users with --find-rate, which is an open loop"
        )
    if rate is not None and len(rates_of(rate)) != 1:
        raise InvalidRequest("--rate", rate, "one rate to start from, with --find-rate")
    start = None if rate is None else rates_of(rate)[0]
    return Search(share=results.share, precision=results.precision, start=start)


def main() -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(load)
    app()
