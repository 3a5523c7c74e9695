"""`darkroom simulate`: a cluster that is not there, under load that nobody sends. Wiring only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from loadgen.cli.combinations import check_combinations
from loadgen.cli.options import OUT, WHEN, LoadOptions, LoopOptions
from loadgen.simulator.profiles import h800
from loadgen.simulator.studies.names import MOST_DEVICES, OURS, SYSTEMS, WHATS
from shared.errors import InvalidRequest
from shared.host.command_exits import exit_codes
from shared.host.command_options import with_option_groups

NOT_SIMULATED: Final = ("prompt", "masks", "control")
"""Options of the workload that would change nothing."""


def _out(*names: str, **option: Any) -> Any:
    return typer.Option(*names, rich_help_panel=OUT, **option)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What is simulated."""

    profile: Annotated[
        str,
        typer.Option(
            metavar="FILE|h800[/SETTING]",
            help="What components cost: the file of a profile, or the published one of all models, "
            "or of one setting: " + ", ".join(h800.SETTINGS) + ".",
        ),
    ] = h800.NAME
    devices: Annotated[
        int, typer.Option(min=1, max=MOST_DEVICES, help="How many devices there are.")
    ] = 8
    system: Annotated[
        str,
        typer.Option(
            metavar="NAME[,…]",
            help="Who serves: all, or some of " + ", ".join(SYSTEMS) + ".",
        ),
    ] = OURS
    published_trace: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(h800.TRACES),
            help="A trace that was published with the profile, for a setting of it.",
            rich_help_panel=WHEN,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What is judged and searched, and where it is written."""

    slo: Annotated[
        str,
        _out(
            metavar="SECONDS|2x|none",
            help="How soon an answer is in time: in seconds, or as a multiple of the latency that "
            "such a request has alone.",
        ),
    ] = "2x"
    carried: Annotated[
        bool,
        _out("--carried/--not-carried", help="Whether requests say when they must be done."),
    ] = True
    find: Annotated[
        str | None,
        _out(
            metavar="|".join(WHATS),
            help="Search the highest rate, the largest burst or the fewest devices at which the "
            "SLO is kept.",
        ),
    ] = None
    share: Annotated[
        float, _out(min=0.01, max=0.999, help="The share of answers that must be in time.")
    ] = 0.9
    precision: Annotated[
        float, _out(min=0.001, max=1, help="The relative precision of what is found.")
    ] = 0.05
    json_file: Annotated[
        Path | None,
        _out("--json", metavar="FILE", help="Write the comparison as JSON; - is standard output."),
    ] = None
    html_file: Annotated[
        Path | None, _out("--html", metavar="FILE", help="Write the comparison as one HTML page.")
    ] = None


@with_option_groups
def simulate(
    cluster: ClusterOptions, options: LoadOptions, loop: LoopOptions, results: StudyOptions
) -> None:
    """Simulate a cluster of processes under load, with the decisions that the services take."""
    with exit_codes(Console(stderr=True)):
        for name in NOT_SIMULATED:
            if value := getattr(options, name):
                raise InvalidRequest(f"--{name}", value, "nothing: it changes no simulation")
        check_combinations(options, loop.users)
        from loadgen.cli.simulation import Asked, carry_out  # others need not wait for its imports

        asked = Asked(
            options=options,
            profile=cluster.profile,
            devices=cluster.devices,
            system=cluster.system,
            published_trace=cluster.published_trace,
            users=loop.users,
            think=loop.think,
            slo=results.slo,
            carried=results.carried,
            find=results.find,
            share=results.share,
            precision=results.precision,
        )
        carry_out(asked, results.json_file, results.html_file)
