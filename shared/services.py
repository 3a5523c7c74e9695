"""The services, one row each: a new one is a folder in `services/` and a row here.

Whoever starts services, lets them on the bus, checks that they are there, sends them work or tells
what they read asks this table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Final, Literal

from shared import subjects

NodeKind = Literal["encode", "encode_image", "hint", "denoise", "decode"]
SettingGroup = Literal[
    "work", "tensors", "models", "controls", "catalogue", "loras", "planning", "denoising", "http"
]
"""Settings that the same services read; see `shared/config.py`."""
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Served:
    """Names of what a fleet holds: each has queues of its own."""

    models: Sequence[str]
    controls: Sequence[str] = ()


Subjects = Callable[[Served], Iterable[str]]


def _none(served: Served) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """What others have to know of a service."""

    reads: frozenset[SettingGroup] = frozenset()
    """Settings, beside those that every service reads."""
    nodes: tuple[NodeKind, ...] = ()
    """Kinds of nodes that it runs, from a queue for each of what it `holds`."""
    holds: Literal["models", "controls"] = "models"
    """What it has weights of. Without ControlNets no process is started that holds those."""
    needed: bool = False
    """Whether no job can do without it."""
    cores: Literal["most", "half", "one"] = "one"
    """How many its processes share. Those with most of them have a GPU each, if there are some."""
    submits: bool = False
    """Whether it submits jobs, follows and cancels them, as clients do."""
    plans: bool = False
    """Whether it takes submissions, writes records and changes streams."""
    places: bool = False
    """Whether it says what processes shall hold."""
    processes: int = 1
    """That a fleet starts where nobody says how many."""
    publishes: Subjects = _none
    """Subjects, beside those that follow from the above; `subscribes` likewise."""
    subscribes: Subjects = _none
    fetches: tuple[tuple[str, str], ...] = ()
    """Stored messages that it reads: a stream, and a subject in it."""


_CATALOGUE: Final[frozenset[SettingGroup]] = frozenset({"models", "controls", "catalogue"})
_COMPUTES: Final[frozenset[SettingGroup]] = frozenset({"work", "tensors"})
_INPUTS: Final = (subjects.INPUTS, subjects.ALL_INPUTS)

SERVICES: Final[Mapping[str, ServiceSpec]] = MappingProxyType(
    {
        "gateway": ServiceSpec(
            reads=_CATALOGUE | {"http"},
            submits=True,
            publishes=lambda served: [subjects.ALL_METRICS],
        ),
        "planner": ServiceSpec(
            reads=_CATALOGUE | {"work", "planning"},
            needed=True,
            plans=True,
            publishes=lambda served: [subjects.ALL_INPUTS],
            fetches=(_INPUTS,),
        ),
        "placement": ServiceSpec(
            places=True,
            processes=0,
            subscribes=lambda served: [subjects.ALL_LOADS],
        ),
        "prompt_encoder": ServiceSpec(
            reads=_COMPUTES | _CATALOGUE | {"loras"},
            nodes=("encode",),
            needed=True,
            cores="half",
        ),
        "controlnet": ServiceSpec(
            reads=_COMPUTES | {"controls"},
            nodes=("hint",),
            holds="controls",
            cores="half",
            subscribes=lambda served: map(subjects.control, served.controls),
            fetches=(_INPUTS,),
        ),
        # It frees what ControlNets answer as it frees what jobs leave behind.
        "denoiser": ServiceSpec(
            reads=_COMPUTES | _CATALOGUE | {"loras", "denoising"},
            nodes=("denoise",),
            needed=True,
            cores="most",
            publishes=lambda served: chain(
                map(subjects.preview, served.models),
                map(subjects.assist, served.models),
                map(subjects.control, served.controls),
            ),
            subscribes=lambda served: map(subjects.assist, served.models),
        ),
        "vae": ServiceSpec(
            reads=_COMPUTES | {"models"},
            nodes=("decode", "encode_image"),
            needed=True,
            cores="half",
            publishes=lambda served: [subjects.results(ANY)],
            subscribes=lambda served: map(subjects.preview, served.models),
            fetches=(_INPUTS, (subjects.RESULTS, subjects.results(ANY))),
        ),
    }
)
"""In the order in which they are listed everywhere."""

NEEDED: Final = tuple(name for name, spec in SERVICES.items() if spec.needed)
SERVICE_OF: Final[Mapping[NodeKind, str]] = {
    kind: name for name, spec in SERVICES.items() for kind in spec.nodes
}
KINDS_OF_MODELS: Final = tuple(
    kind for kind, name in SERVICE_OF.items() if SERVICES[name].holds == "models"
)
"""Nodes that every model has a queue of; a ControlNet has one of hints."""


def bus_name(service: str) -> str:
    """As which its processes answer to `$SRV`."""
    return f"darkroom-{service.replace('_', '-')}"


def reading(*groups: SettingGroup) -> tuple[str, ...]:
    """Services that read one of `groups`."""
    return tuple(name for name, spec in SERVICES.items() if not spec.reads.isdisjoint(groups))
