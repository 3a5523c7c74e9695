"""What `darkroom simulate` does once it knows what is wanted."""

import sys
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from loadgen.cli.options import LoadOptions
from loadgen.cli.results import check_writable
from loadgen.cli.workload import rates_of, workload_of
from loadgen.outcomes.outcome import RequestTemplate
from loadgen.report.statistics.slo import parse_slo
from loadgen.simulator.profiles import h800
from loadgen.simulator.profiles.profile import Profile, load_profile
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.comparison import Comparison, Study, compare
from loadgen.simulator.studies.names import SYSTEMS, WHATS, Name, What
from loadgen.simulator.studies.page import comparison_page, render_comparison
from loadgen.workload.workload import Entry, Workload
from shared.errors import InvalidRequest

SAID_BY_TRACES: Final = ("trace", "rate", "arrivals", "cv", "duration", "tenants", "model")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line, by their names."""

    options: LoadOptions
    profile: str
    devices: int
    system: str
    published_trace: str | None
    users: int | None
    think: float
    slo: str
    carried: bool
    find: str | None
    share: float
    precision: float


def carry_out(asked: Asked, json_file: Path | None, html_file: Path | None) -> None:
    """Simulate, and write what was found. Raises `InvalidRequest` naming the option."""
    for file in (json_file, html_file):
        check_writable(file)
    errors = Console(stderr=True)
    study = study_of(asked)
    found = compare(study, lambda text: errors.print(text, highlight=False, markup=False))
    if str(json_file) != "-":
        Console().print(render_comparison(found))
    _write(found, json_file, html_file)


def study_of(asked: Asked) -> Study:
    """Raises `InvalidRequest` naming the option."""
    find, options = _what(asked.find), asked.options
    if find is not None:
        options = msgspec.structs.replace(options, rate=None)
    profile, setting = _profile(asked.profile)
    return Study(
        cluster=Cluster(profile=profile, devices=asked.devices),
        systems=_systems(asked.system),
        workload=_workload(options, profile, setting, asked.published_trace),
        slo=parse_slo(asked.slo),
        carried=asked.carried,
        users=asked.users,
        think=asked.think,
        find=find,
        rate=_start(find, asked.options.rate, asked.users),
        share=asked.share,
        precision=asked.precision,
    )


def _write(found: Comparison, json_file: Path | None, html_file: Path | None) -> None:
    """`-`: to stdout."""
    data = msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    if str(json_file) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    elif json_file is not None:
        json_file.write_bytes(data)
    if html_file is not None:
        html_file.write_text(comparison_page(found), encoding="utf-8")


def _profile(text: str) -> tuple[Profile, str | None]:
    """With the setting, if it is one of the published."""
    name, _, setting = text.partition("/")
    if name != h800.NAME:
        return load_profile(Path(text)), None
    if not setting:
        return h800.profile(), None
    if setting not in h800.SETTINGS:
        raise InvalidRequest("--profile", text, "h800/ and one of " + ", ".join(h800.SETTINGS))
    return h800.of_setting(setting), setting


def _systems(text: str) -> tuple[Name, ...]:
    if text == "all":
        return SYSTEMS
    chosen = [word.strip() for word in text.split(",")]
    for word in chosen:
        if word not in SYSTEMS:
            raise InvalidRequest("--system", word, "all, or some of " + ", ".join(SYSTEMS))
    return tuple(name for name in SYSTEMS if name in chosen)


def _what(text: str | None) -> What | None:
    for what in WHATS:
        if what == text:
            return what
    if text is not None:
        raise InvalidRequest("--find", text, "one of " + ", ".join(WHATS))
    return None


def _start(searched: What | None, rate: str | None, users: int | None) -> float | None:
    if searched is None:
        return None
    if users is not None:
        raise InvalidRequest("--users", users, f"no users with --find {searched}: an open loop")
    if rate is None:
        return None
    rates = rates_of(rate)
    if len(rates) != 1:
        raise InvalidRequest("--rate", rate, "one rate to start from, with --find")
    return rates[0]


def _workload(
    options: LoadOptions, profile: Profile, setting: str | None, published: str | None
) -> Workload:
    """Every workflow of the profile equally often, where nobody says what is asked for."""
    if published is not None:
        _check_published(options, setting, published)
        assert setting is not None
        trace = h800.served(h800.trace(published), setting)
        return msgspec.structs.replace(workload_of(options), trace=trace)
    wanted = workload_of(options)
    if options.workload is not None or options.model is not None:
        return wanted
    mix = tuple(
        Entry(name=_name(name, entry), request=_asking(entry.request, name))
        for name in profile.workflows
        for entry in wanted.mix
    )
    return msgspec.structs.replace(wanted, mix=mix)


def _asking(request: RequestTemplate, model: str) -> RequestTemplate:
    return msgspec.structs.replace(request, model=model)


def _name(workflow: str, entry: Entry) -> str:
    return workflow if entry.name == "default" else f"{workflow}, {entry.name}"


def _check_published(options: LoadOptions, setting: str | None, published: str) -> None:
    """Nothing beside it would have any effect."""
    if published not in h800.TRACES:
        raise InvalidRequest("--published-trace", published, "one of " + ", ".join(h800.TRACES))
    if setting is None:
        raise InvalidRequest(
            "--published-trace",
            published,
            "it with --profile h800/SETTING, whose workflows it asks",
        )
    for name in SAID_BY_TRACES:
        if value := getattr(options, name):
            raise InvalidRequest(
                f"--{name.replace('_', '-')}", value, "nothing beside --published-trace"
            )
