"""`darkroom load`, and `python -m loadgen`. Wiring only."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from loadgen.cli.combinations import check_combinations
from loadgen.cli.options import KINDS, LoadOptions, fields_of, rates_of, workload_of
from loadgen.outcomes.limits import Limits
from loadgen.report.statistics.slo import parse_slo
from loadgen.runs.find_rate import Search
from loadgen.runs.plan import Plan
from loadgen.targets.choose import KINDS as TARGETS
from loadgen.targets.choose import chosen
from loadgen.workload.controls import read_all
from shared.errors import InvalidRequest
from shared.host.command_exits import exit_codes

LIMITS: Final = "Limits"
MIX: Final = "What is asked for (see also --workload)"
WHEN: Final = "When it is asked for"
OUT: Final = "Results"

Number = float | None
Text = str | None
File = Path | None


def load(
    ctx: typer.Context,
    url: Annotated[
        Text, typer.Option(help="Of the server; else the fleet running here.", show_default=False)
    ] = None,
    target: Annotated[Text, typer.Option(help="One of " + ", ".join(TARGETS) + ".")] = None,
    api_key: Annotated[
        Text,
        typer.Option(help="Else DARKROOM_TOKEN or, for openai, OPENAI_API_KEY."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="A field that the openai target takes, such as steps."),
    ] = None,
    response_format: Annotated[
        Text,
        typer.Option(
            metavar="FORMAT",
            help="b64_json (the default), url, or none: not sent, for servers that refuse it.",
        ),
    ] = None,
    rate: Annotated[
        Text,
        typer.Option(
            metavar="R[,R…]",
            help="Per second; a ramp takes two, steps any number.",
            rich_help_panel=WHEN,
        ),
    ] = None,
    arrivals: Annotated[
        Text, typer.Option(help="One of " + ", ".join(KINDS) + ".", rich_help_panel=WHEN)
    ] = None,
    cv: Annotated[
        Number,
        typer.Option(
            help="Coefficient of variation of the gaps: 0 a clock, 1 Poisson.", rich_help_panel=WHEN
        ),
    ] = None,
    burst_factor: Annotated[
        Number, typer.Option(help="Of a burst, times the rate [8].", rich_help_panel=WHEN)
    ] = None,
    burst_at: Annotated[
        Number, typer.Option(help="Second at which it begins.", rich_help_panel=WHEN)
    ] = None,
    burst_seconds: Annotated[
        Number, typer.Option(help="How long it is.", rich_help_panel=WHEN)
    ] = None,
    duration: Annotated[Number, typer.Option(help="Seconds [60].", rich_help_panel=WHEN)] = None,
    users: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000, help="A closed loop of so many users.", rich_help_panel=WHEN
        ),
    ] = None,
    think: Annotated[
        float, typer.Option(min=0, help="Mean seconds of a user's thought.", rich_help_panel=WHEN)
    ] = 0.0,
    trace: Annotated[
        File,
        typer.Option(
            metavar="FILE", help="`tenant gap_seconds` or JSON lines.", rich_help_panel=WHEN
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the whole schedule.", rich_help_panel=WHEN)
    ] = None,
    workload: Annotated[
        File, typer.Option(metavar="FILE", help="TOML or JSON.", rich_help_panel=MIX)
    ] = None,
    model: Annotated[Text, typer.Option(rich_help_panel=MIX)] = None,
    prompt: Annotated[Text, typer.Option(rich_help_panel=MIX)] = None,
    size: Annotated[Text, typer.Option(metavar="WxH[,…]", rich_help_panel=MIX)] = None,
    steps: Annotated[Text, typer.Option(metavar="N[,…]", rich_help_panel=MIX)] = None,
    guidance: Annotated[Text, typer.Option(metavar="G[,…]", rich_help_panel=MIX)] = None,
    classes: Annotated[
        Text, typer.Option("--class", metavar="CLASS[,…]", rich_help_panel=MIX)
    ] = None,
    deadline: Annotated[
        Number, typer.Option(help="Seconds, sent with each request.", rich_help_panel=MIX)
    ] = None,
    masks: Annotated[
        Text, typer.Option(help="face_swap, detail_fixing or inpainting.", rich_help_panel=MIX)
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE[:SCALE]",
            help="A picture to steer by, sent with each request.",
            rich_help_panel=MIX,
        ),
    ] = None,
    tenants: Annotated[
        list[str] | None, typer.Option("--tenant", metavar="NAME[=WEIGHT]", rich_help_panel=MIX)
    ] = None,
    slo: Annotated[
        str,
        typer.Option(
            metavar="SECONDS|2x|none",
            help="In time: seconds, or times the solo latency.",
            rich_help_panel=OUT,
        ),
    ] = "none",
    find: Annotated[
        bool,
        typer.Option(
            "--find-rate", help="Search the highest rate that keeps the SLO.", rich_help_panel=OUT
        ),
    ] = False,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.999, help="That must be in time.", rich_help_panel=OUT)
    ] = 0.9,
    precision: Annotated[
        float, typer.Option(min=0.001, max=1, help="Of the rate found.", rich_help_panel=OUT)
    ] = 0.05,
    json_file: Annotated[
        File, typer.Option("--json", metavar="FILE", help="- is stdout.", rich_help_panel=OUT)
    ] = None,
    html_file: Annotated[File, typer.Option("--html", metavar="FILE", rich_help_panel=OUT)] = None,
    in_flight: Annotated[
        int,
        typer.Option(
            "--max-in-flight",
            min=1,
            max=60_000,
            help="More are counted as lost.",
            rich_help_panel=LIMITS,
        ),
    ] = 1024,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a request.", rich_help_panel=LIMITS)
    ] = 600.0,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds after the last send.", rich_help_panel=LIMITS)
    ] = 120.0,
) -> None:
    """Send requests to a server when they were planned, and report what became of them."""
    with exit_codes(Console(stderr=True)):
        server = chosen(
            target,
            url,
            api_key=api_key,
            also=fields_of(also or ()),
            response_format=response_format,
        )
        words = {name: ctx.params[name] for name in LoadOptions.__struct_fields__}
        options = msgspec.convert(words, LoadOptions)
        check_combinations(options, users)
        if find:
            _check_search(users, rate)
            start = None if rate is None else rates_of(rate)[0]
            search = Search(share=share, precision=precision, start=start)
            options = msgspec.structs.replace(options, rate=None)
        wanted = workload_of(options)
        read_all(wanted)
        plan = Plan(
            target=server,
            workload=wanted,
            slo=parse_slo(slo),
            users=users,
            think=think,
            limits=Limits(in_flight=in_flight, timeout=timeout, drain=drain),
            search=search if find else None,
        )
        from loadgen.cli.command import carry_out  # other commands need not wait for its imports

        carry_out(plan, json_file, html_file)


def _check_search(users: int | None, rate: str | None) -> None:
    if users is not None:
        raise InvalidRequest("--users", users, "no users with --find-rate: it is an open loop")
    if rate is not None and len(rates_of(rate)) != 1:
        raise InvalidRequest("--rate", rate, "one rate to start from, with --find-rate")


def main() -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(load)
    app()
