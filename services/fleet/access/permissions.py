"""What each service may do on the bus; whatever is not listed here is denied. Pure.

`darkroom keys` writes this table into the configuration of nats-server. Answers to a request need
no row: whoever receives one may answer it once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared import subjects
from shared.bus.discovery import NAME_PREFIX
from shared.bus.nats import grants
from shared.bus.nats.grants import EVERYTHING, Grants
from shared.bus.service import PREFIX as DISCOVERY
from shared.bus.service import VERBS
from shared.security.keys import inbox_of

STREAMS: Final = (
    subjects.JOBS,
    subjects.WORK,
    subjects.RESULTS,
    subjects.INPUTS,
    subjects.DEAD,
)
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Served:
    """Names of what a fleet holds: each has queues of its own."""

    models: Sequence[str]
    controls: Sequence[str] = ()


def permissions(service: str, public_key: str, served: Served) -> Grants:
    """What the holder of this key may do as `service`, in a fleet that holds `served`."""
    return _TABLE[service](service, served) + grants.own_inbox(inbox_of(public_key))


def _process(service: str) -> Grants:
    """What every process of a fleet does: make sure of the streams, show itself and be asked."""
    name = f"{NAME_PREFIX}{service.replace('_', '-')}"
    return grants.total(
        grants.make_streams(*STREAMS),
        grants.make_bucket(subjects.RECORDS),
        grants.look_at_streams(*STREAMS),
        grants.publish(f"{DISCOVERY}.STATS"),
        grants.subscribe(subjects.ALL_METRICS),
        *(
            grants.subscribe(f"{DISCOVERY}.{verb}{suffix}")
            for verb in VERBS
            for suffix in ("", f".{name}", f".{name}.{ANY}")
        ),
    )


def _records() -> Grants:
    """Advance any job, and do whatever follows from that (`shared/jobs/record_store.py`)."""
    return grants.total(
        grants.write_bucket(subjects.RECORDS),
        grants.publish(
            subjects.ALL_WORK,
            subjects.result(ANY),
            subjects.ALL_DEAD,
            subjects.event(ANY),
            subjects.release(ANY),
        ),
        grants.read(subjects.RESULTS, subjects.result(ANY)),
        grants.read(subjects.WORK, subjects.ALL_WORK),
        grants.read(subjects.DEAD, subjects.ALL_DEAD),
    )


def _user(service: str, served: Served) -> Grants:
    """Submit jobs, follow them, cancel them."""
    return grants.total(
        grants.look_at_streams(*STREAMS),
        grants.publish(subjects.ALL_SUBMITS, subjects.ALL_CANCELS),
        grants.read(subjects.JOBS, subjects.ALL_SUBMITS),
        grants.read_bucket(subjects.RECORDS),
        grants.read(subjects.RESULTS, subjects.ALL_RESULTS),
        grants.subscribe(subjects.result(ANY), subjects.results(ANY), subjects.event(ANY)),
        grants.publish(f"{DISCOVERY}.STATS"),
    )


def _gateway(service: str, served: Served) -> Grants:
    return grants.total(
        _process(service), _user(service, served), grants.publish(subjects.ALL_METRICS)
    )


def _planner(service: str, served: Served) -> Grants:
    return grants.total(
        _process(service),
        _records(),
        grants.change_streams(*STREAMS),
        grants.change_bucket(subjects.RECORDS),
        grants.consume(subjects.JOBS, subjects.PLANNERS),
        grants.read(subjects.JOBS, subjects.ALL_SUBMITS),
        grants.subscribe(subjects.ALL_CANCELS),
        grants.publish(subjects.ALL_INPUTS),
        grants.read(subjects.INPUTS, subjects.ALL_INPUTS),
    )


def _worker(service: str, names: Sequence[str], *kinds: str) -> Grants:
    """Runs the nodes of these kinds, for the models (or ControlNets) of these names."""
    queues = [
        subjects.work_consumer(kind, name, service_class)
        for kind in kinds
        for name in names
        for service_class in subjects.CLASSES
    ]
    return grants.total(
        _process(service),
        _records(),
        grants.consume(subjects.WORK, *queues),
        grants.subscribe(subjects.ALL_CANCELS, subjects.release(ANY)),
    )


def _prompt_encoder(service: str, served: Served) -> Grants:
    return _worker(service, served.models, "encode")


def _controlnet(service: str, served: Served) -> Grants:
    return grants.total(
        _worker(service, served.controls, "hint"),
        grants.subscribe(*(subjects.control(control) for control in served.controls)),
        grants.read(subjects.INPUTS, subjects.ALL_INPUTS),
    )


def _denoiser(service: str, served: Served) -> Grants:
    """It frees what ControlNets answer as it frees what jobs leave behind."""
    return grants.total(
        _worker(service, served.models, "denoise"),
        grants.publish(*(subjects.preview(model) for model in served.models)),
        grants.publish(*(subjects.control(control) for control in served.controls)),
        grants.publish(*(subjects.assist(model) for model in served.models)),
        grants.subscribe(*(subjects.assist(model) for model in served.models)),
    )


def _vae(service: str, served: Served) -> Grants:
    return grants.total(
        _worker(service, served.models, "decode", "encode_image"),
        grants.read(subjects.INPUTS, subjects.ALL_INPUTS),
        grants.subscribe(*(subjects.preview(model) for model in served.models)),
        grants.publish(subjects.results(ANY)),
        grants.read(subjects.RESULTS, subjects.results(ANY)),
    )


def _idle(service: str, served: Served) -> Grants:
    """Shows itself, and does nothing yet."""
    return _process(service)


def _admin(service: str, served: Served) -> Grants:
    """The fleet itself, and the commands that mend it."""
    return EVERYTHING


_TABLE: Final[Mapping[str, Callable[[str, Served], Grants]]] = {
    "gateway": _gateway,
    "planner": _planner,
    "prompt_encoder": _prompt_encoder,
    "controlnet": _controlnet,
    "denoiser": _denoiser,
    "vae": _vae,
    "placement": _idle,
    "client": _user,
    "admin": _admin,
}

HOLDERS: Final = tuple(_TABLE)
"""Who gets a key."""
