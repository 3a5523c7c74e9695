"""The options of `darkroom load`, in groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from loadgen.outcomes.limits import Limits
from loadgen.targets.choose import KINDS as TARGETS
from shared.service_classes import CLASSES

KINDS: Final = ("constant", "poisson", "gamma", "steps", "ramp", "burst")
"""Of arrivals."""

LIMITS: Final = "Limits"
MIX: Final = "What is asked for (see also --workload)"
WHEN: Final = "When it is asked for"
OUT: Final = "Results"


def _when(**option: Any) -> Any:
    return typer.Option(rich_help_panel=WHEN, **option)


def _mix(*names: str, **option: Any) -> Any:
    return typer.Option(*names, rich_help_panel=MIX, **option)


def _out(*names: str, **option: Any) -> Any:
    return typer.Option(*names, rich_help_panel=OUT, **option)


def _limit(*names: str, **option: Any) -> Any:
    return typer.Option(*names, rich_help_panel=LIMITS, **option)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Which server is asked, and in which words."""

    url: Annotated[
        str | None,
        typer.Option(
            help="The server's address. Default: the fleet that runs on this machine.",
            show_default=False,
        ),
    ] = None
    target: Annotated[
        str | None, typer.Option(help="The kind of server: " + ", ".join(TARGETS) + ".")
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option(
            help="The bearer token. Default: DARKROOM_TOKEN or, for openai, OPENAI_API_KEY."
        ),
    ] = None
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="A field beyond OpenAI's that the openai target takes, such as steps; repeatable.",
        ),
    ] = None
    response_format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="b64_json (the default), url, or none: not sent, for servers that refuse it.",
        ),
    ] = None


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What describes the workload; None (or empty) was not given."""

    rate: Annotated[
        str | None,
        _when(metavar="R[,R…]", help="Requests per second; a ramp takes two, steps any number."),
    ] = None
    arrivals: Annotated[
        str | None, _when(help="How requests arrive: " + ", ".join(KINDS) + ".")
    ] = None
    cv: Annotated[
        float | None,
        _when(
            help="Coefficient of variation of the gaps between arrivals: 0 is a clock, 1 Poisson."
        ),
    ] = None
    burst_factor: Annotated[
        float | None, _when(help="The rate during a burst, as a multiple of --rate. Default: 8.")
    ] = None
    burst_at: Annotated[
        float | None, _when(help="The second at which a burst begins. Default: after a third.")
    ] = None
    burst_seconds: Annotated[
        float | None, _when(help="How long a burst lasts. Default: a third of the duration.")
    ] = None
    duration: Annotated[
        float | None, _when(help="How long requests are sent, in seconds. Default: 60.")
    ] = None
    trace: Annotated[
        Path | None,
        _when(metavar="FILE", help="Arrivals from a file: `tenant gap_seconds`, or JSON lines."),
    ] = None
    seed: Annotated[int | None, _when(help="The seed of the whole schedule.")] = None
    workload: Annotated[
        Path | None,
        _mix(metavar="FILE", help="A workload in TOML or JSON, which other options change."),
    ] = None
    model: Annotated[str | None, _mix(help="The model's name.")] = None
    prompt: Annotated[str | None, _mix(help="The prompt of every request.")] = None
    size: Annotated[str | None, _mix(metavar="WxH[,…]", help="Sizes in pixels.")] = None
    steps: Annotated[str | None, _mix(metavar="N[,…]", help="Denoising steps.")] = None
    guidance: Annotated[
        str | None, _mix(metavar="G[,…]", help="Scales of classifier-free guidance.")
    ] = None
    classes: Annotated[
        str | None,
        _mix("--class", metavar="CLASS[,…]", help=f"Service classes: {', '.join(CLASSES)}."),
    ] = None
    deadline: Annotated[
        float | None, _mix(help="A deadline in seconds, sent with each request.")
    ] = None
    masks: Annotated[
        str | None,
        _mix(help="Edits with masks as of face_swap, detail_fixing or inpainting."),
    ] = None
    control: Annotated[
        list[str] | None,
        _mix(
            metavar="NAME=FILE[:SCALE]",
            help="A ControlNet and its image, sent with each request; repeatable.",
        ),
    ] = None
    tenants: Annotated[
        list[str] | None,
        _mix("--tenant", metavar="NAME[=WEIGHT]", help="Who asks, and how often; repeatable."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """A closed loop, instead of arrivals."""

    users: Annotated[
        int | None,
        _when(
            min=1,
            max=10_000,
            help="A closed loop: so many users, each of whom waits for an answer before asking "
            "again.",
        ),
    ] = None
    think: Annotated[
        float, _when(min=0, help="Mean seconds between an answer and a user's next request.")
    ] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """What is measured, and where it is written."""

    slo: Annotated[
        str,
        _out(
            metavar="SECONDS|2x|none",
            help="How soon an answer is in time: in seconds, or as a multiple of the latency that "
            "such a request has alone.",
        ),
    ] = "none"
    find: Annotated[
        bool, _out("--find-rate", help="Search the highest rate at which the SLO is kept.")
    ] = False
    share: Annotated[
        float, _out(min=0.01, max=0.999, help="The share of answers that must be in time.")
    ] = 0.9
    precision: Annotated[
        float, _out(min=0.001, max=1, help="The relative precision of the rate that is found.")
    ] = 0.05
    json_file: Annotated[
        Path | None,
        _out("--json", metavar="FILE", help="Write the report as JSON; - is standard output."),
    ] = None
    html_file: Annotated[
        Path | None, _out("--html", metavar="FILE", help="Write the report as one HTML page.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    in_flight: Annotated[
        int,
        _limit(
            "--max-in-flight",
            min=1,
            max=60_000,
            help="Requests without an answer at a time; those beyond are not sent, and counted as "
            "lost.",
        ),
    ] = 1024
    timeout: Annotated[
        float, _limit(min=0.1, help="Seconds after which a request is given up.")
    ] = 600.0
    drain: Annotated[
        float, _limit(min=0, help="Seconds to wait for answers after the last request.")
    ] = 120.0

    @property
    def limits(self) -> Limits:
        return Limits(in_flight=self.in_flight, timeout=self.timeout, drain=self.drain)
