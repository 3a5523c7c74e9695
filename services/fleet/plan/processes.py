"""Which processes a fleet consists of, and what each is told. Pure, but for a look at which
directories there are."""

import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.fleet.access.keys import GATEWAY, TOKENS
from shared.config import Settings
from shared.errors import InvalidRequest
from shared.models.catalogue import Catalogue, control_sources, read_controls
from shared.models.files.directory import is_hub_id
from shared.models.loras.sources.hosts import Hosts
from shared.policy.fleet_layout import threads_each
from shared.services import SERVICES
from shared.shipped import DEFAULT_CONTROLS, DEFAULT_LORAS, DEFAULT_MODEL, MODELS, located

MOST_REPLICAS: Final = 64


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What a user chooses about a fleet. A port of 0 is a free one."""

    name: str = field(default_factory=lambda: f"fleet-{uuid.uuid4().hex[:8]}")
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    replicas: Mapping[str, int] = field(default_factory=dict)
    """Processes per service, 1 where it is not named; 0 leaves a service out. Without ControlNets
    there is no process for them."""
    most: Mapping[str, int] = field(default_factory=dict)
    """Processes that services may have at most, those that have as many as placement wants."""
    devices: tuple[str, ...] = ()
    """GPUs, as CUDA_VISIBLE_DEVICES names them: each denoiser gets one. None: as inherited."""
    controls_apart: bool = False
    """A process (and its replicas) for each ControlNet, instead of one for all."""
    http_host: str = "127.0.0.1"
    http_port: int = 0
    keys: Path | None = None
    """What `darkroom keys` made; None: whoever reaches the bus may use it."""
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to keep running. `environment` is all it gets."""

    name: str
    service: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Crew:
    """Processes that are started at once, and those that may be later."""

    begin: Sequence[ProcessSpec]
    spare: Sequence[ProcessSpec] = ()

    @property
    def all(self) -> tuple[ProcessSpec, ...]:
        return (*self.begin, *self.spare)


def parse_replicas(texts: list[str]) -> dict[str, int]:
    """`["denoiser=2"]` as a mapping. Raises `InvalidRequest`."""
    return _counts("--replicas", texts, list(SERVICES), least=0)


def parse_most(texts: list[str], replicas: Mapping[str, int], apart: bool) -> dict[str, int]:
    """As `parse_replicas`, of the most processes that services may have, which `replicas` do not
    exceed. `apart`: ControlNets have processes of their own, which are not scaled. Raises
    `InvalidRequest`."""
    scaled = [
        service
        for service, spec in SERVICES.items()
        if spec.nodes and not (apart and spec.holds == "controls")
    ]
    found = _counts("--max-processes", texts, scaled, least=1)
    for service, most in found.items():
        if (begin := replicas.get(service, 1)) not in range(1, most + 1):
            raise InvalidRequest("--replicas", f"{service}={begin}", f"{service}=1..{most}")
    return found


def _counts(option: str, texts: list[str], services: list[str], least: int) -> dict[str, int]:
    found = {}
    for text in texts:
        service, _, count = text.partition("=")
        allowed = range(least, MOST_REPLICAS + 1)
        if service not in services or not count.isdecimal() or int(count) not in allowed:
            names = ", ".join(services)
            raise InvalidRequest(
                option, text, f"SERVICE={least}..{MOST_REPLICAS} with SERVICE one of {names}"
            )
        found[service] = int(count)
    return found


def default_models(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What is served when nobody names a model: DARKROOM_MODELS, else the one that ships."""
    given = environ.get("DARKROOM_MODELS", "").split(os.pathsep)
    return tuple(source for source in given if source) or (DEFAULT_MODEL,)


def served_models(given: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """What --model names, else the default, as services find it; what is named twice is there once.
    Raises `InvalidRequest` for what cannot be a model."""
    option = "--model" if given else "DARKROOM_MODELS"
    named = absolute_sources(tuple(given) or default_models(environ))
    sources = tuple(dict.fromkeys(named))
    for source in sources:
        if not Path(source).is_dir() and not is_hub_id(source):
            ships = ", ".join(sorted(MODELS))
            raise InvalidRequest(
                option, source, f"a directory, a hub id (OWNER/NAME), or what ships: {ships}"
            )
    return sources


def given_twice(given: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """A sentence for each model that is named more than once."""
    named = absolute_sources(tuple(given) or default_models(environ))
    twice = [source for source in dict.fromkeys(named) if named.count(source) > 1]
    return [f"{source} is given {named.count(source)} times, and served once" for source in twice]


def default_loras(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Directories of LoRAs: DARKROOM_LORAS, else what ships."""
    given = environ.get("DARKROOM_LORAS", DEFAULT_LORAS).split(os.pathsep)
    return tuple(str(Path(directory).resolve()) for directory in given if directory)


def default_controls(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where ControlNets are: DARKROOM_CONTROLS, else what ships."""
    given = environ.get("DARKROOM_CONTROLS", DEFAULT_CONTROLS).split(os.pathsep)
    return absolute_sources(tuple(source for source in given if source))


def catalogue_of(sources: Sequence[str], environ: Mapping[str, str] = os.environ) -> Catalogue:
    """As the services of a fleet with these models read it. Raises `Misconfigured`."""
    settings = Settings.from_env(environ)
    return Catalogue.load(
        sources,
        default_loras(environ),
        default_controls(environ),
        Hosts.parse(settings.lora_origins, settings.lora_hub),
        settings.model_settings,
    )


def absolute_sources(models: tuple[str, ...]) -> tuple[str, ...]:
    """Directories, and models that ship, as absolute paths; hub ids as they are."""
    return tuple(map(located, models))


def plan_processes(
    options: FleetOptions, nats_url: str, inherited: Mapping[str, str]
) -> tuple[ProcessSpec, ...]:
    """The fleet's processes, in the order in which they are listed everywhere; of services with
    processes at `most`, so many."""
    specs: list[ProcessSpec] = []
    for service, spec in SERVICES.items():
        count = options.most.get(service, replicas_of(options, service))
        shares = {service: inherited}
        if spec.holds == "controls":
            shares = _control_shares(service, options, inherited)
        for name, share in shares.items():
            environment = _environment(service, options, nats_url, count * len(shares), share)
            specs.extend(
                ProcessSpec(
                    name=name if count == 1 else f"{name}-{number}",
                    service=service,
                    command=(sys.executable, "-m", f"services.{service}"),
                    environment=environment | _device(service, options.devices, number),
                )
                for number in range(1, count + 1)
            )
    return tuple(specs)


def replicas_of(options: FleetOptions, service: str) -> int:
    """Its processes when the fleet starts. Whoever wants a service to be scaled wants somebody who
    says how."""
    scaling = 1 if service == "placement" and options.most else SERVICES[service].processes
    return options.replicas.get(service, scaling)


def crew_of(options: FleetOptions, planned: Sequence[ProcessSpec]) -> Crew:
    """Those that are `planned`, by when they are started."""
    begin: list[ProcessSpec] = []
    spare: list[ProcessSpec] = []
    counts = Counter[str]()
    for spec in planned:
        counts[spec.service] += 1
        late = spec.service in options.most
        late = late and counts[spec.service] > replicas_of(options, spec.service)
        (spare if late else begin).append(spec)
    return Crew(begin, spare)


def limits_of(options: FleetOptions) -> dict[str, tuple[int, int]]:
    """The fewest and the most processes of services that are scaled."""
    return {service: (1, most) for service, most in options.most.items()}


def _control_shares(
    service: str, options: FleetOptions, inherited: Mapping[str, str]
) -> dict[str, Mapping[str, str]]:
    """Which processes ControlNets have, by name, and what each inherits: its share of them."""
    own = _usable(default_controls(inherited))
    if not options.controls_apart:
        return {service: inherited} if own else {}
    return {
        f"{service}-{Path(source).name}": {**inherited, "DARKROOM_CONTROLS": source}
        for source in own
    }


def _usable(controls: Sequence[str]) -> list[str]:
    """Without those that are here and cannot be used. Of a hub id nothing is fetched for this."""
    own = [one for given in controls for one in control_sources(given)]
    here = [one for one in own if Path(one).is_dir()]
    fit = {card.source for card in read_controls(here).values()}
    return [one for one in own if one in fit or one not in here]


def _device(service: str, devices: tuple[str, ...], number: int) -> dict[str, str]:
    if SERVICES[service].cores != "most" or not devices:
        return {}
    return {"CUDA_VISIBLE_DEVICES": devices[(number - 1) % len(devices)]}


def _environment(
    service: str, options: FleetOptions, nats_url: str, replicas: int, inherited: Mapping[str, str]
) -> dict[str, str]:
    # A user's own choice of threads goes before ours.
    threads = inherited.get("DARKROOM_THREADS") or str(_threads(service, options.cores, replicas))
    return {
        **inherited,
        **_identity(service, options.keys, inherited),
        "DARKROOM_NATS_SYNC": "always",  # the fleet's own server does
        "DARKROOM_NATS_URL": nats_url,
        "DARKROOM_FLEET": options.name if options.most else "",
        "DARKROOM_FLEET_LIMITS": json.dumps(limits_of(options)),
        "DARKROOM_LORAS": os.pathsep.join(default_loras(inherited)),
        "DARKROOM_CONTROLS": os.pathsep.join(default_controls(inherited)),
        "DARKROOM_MODELS": os.pathsep.join(absolute_sources(options.models)),
        "DARKROOM_HTTP_HOST": options.http_host,
        "DARKROOM_HTTP_PORT": str(options.http_port),
        "DARKROOM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
    }


def _identity(service: str, keys: Path | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """Where a service finds its own keys; it is not told of those of others."""
    if keys is None:  # the fleet's own bus does not ask, whatever the user has for another one
        return {"DARKROOM_KEYS": "", "DARKROOM_CREDENTIALS": ""}
    own = keys.resolve() / service
    found = {"DARKROOM_KEYS": "", "DARKROOM_CREDENTIALS": str(own)}
    if service == "gateway":
        for variable, name in (
            ("DARKROOM_TOKENS", TOKENS),
            ("DARKROOM_HTTP_CERT", GATEWAY[0]),
            ("DARKROOM_HTTP_KEY", GATEWAY[1]),
        ):
            if (own / name).exists() and not inherited.get(variable):
                found[variable] = str(own / name)
    return found


def _threads(service: str, cores: int, replicas: int) -> int:
    """Denoising takes nearly all the time. A ControlNet computes beside it, for half as long."""
    match SERVICES[service].cores:
        case "most":
            return threads_each(cores, replicas)
        case "half":
            return max(1, cores // 2 // max(1, replicas))
        case "one":
            return 1
