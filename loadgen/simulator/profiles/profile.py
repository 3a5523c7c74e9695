"""What a simulated cluster is made of: components with their costs, and the workflows of them."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from loadgen.simulator.profiles.cost import Cost, Seconds
from loadgen.workload.strict import refuse
from shared.errors import InvalidRequest

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a profile file: it is read into memory."""
LATENT_SIDE: Final = 8
"""Pixels along one side of a position of the latents."""

Kind = Literal["encode", "controlnet", "denoise", "decode"]
Count = Annotated[int, Meta(ge=1, le=100_000)]
Bytes = Annotated[int, Meta(ge=0)]


class Component(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One network of a model, or several that always compute one after another.

    `load_seconds`: to bring its `bytes` from the host's memory to a device. `max_batch`: pictures
    (of text encoders: jobs) in one forward at most."""

    kind: Kind
    cost: Cost
    bytes: Bytes = 0
    load_seconds: Seconds = 0.0
    max_batch: Count = 8


class Workflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a request names as its model: components by their names, and what requests get that do
    not say otherwise. `guided`: a step is two forwards. Costs are those at `width` x `height`.
    `ahead`: the share of a step before which no answer of its ControlNets is needed."""

    encode: str
    denoise: str
    decode: str
    controls: tuple[str, ...] = ()
    steps: Count = 28
    guided: bool = True
    ahead: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    width: Count = 1024
    height: Count = 1024

    @property
    def components(self) -> tuple[str, ...]:
        return self.encode, *self.controls, self.denoise, self.decode

    @property
    def positions(self) -> int:
        return self.width * self.height // LATENT_SIDE**2


class Overheads(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What passes beside the components' computing.

    `job`: seconds from a request until its first node is in a queue, and from its last image until
    the client has it, together. `node`: from the end of a node until the next one is at work, on
    an idle fleet. `step`: between two steps of a batch. `ask`: the way to a ControlNet and back,
    in each step. `cpu`: of `job`, seconds of a core that services compete for; `drawn_cpu`: the
    same of a job that is drawn, beside its nodes, while they compute. `split`: in each step of a
    guided picture that is alone in its batch, what it takes to have half of it computed by an idle
    denoiser; none: nobody does."""

    job: Seconds = 0.005
    node: Seconds = 0.005
    step: Seconds = 0.0
    ask: Seconds = 0.002
    cpu: Seconds = 0.0
    drawn_cpu: Seconds = 0.0
    split: Seconds | None = None


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a measured fleet ran: its processes share `cores`, each computes on one of them."""

    cores: Annotated[float, Meta(gt=0)]
    denoisers: Count = 1


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`memory`: bytes of a device. `source`: where the figures come from. `host`: if the fleet
    shares the cores of one machine instead of having a device for each process."""

    name: Annotated[str, Meta(min_length=1)]
    source: str
    components: dict[str, Component]
    workflows: Annotated[dict[str, Workflow], Meta(min_length=1)]
    memory: Annotated[int, Meta(ge=1)] = 80_000_000_000
    overheads: Overheads = Overheads()
    host: Host | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for workflows of components that are not there, or are of another
        kind."""
        for name, workflow in self.workflows.items():
            self._check(name, "encode", workflow.encode)
            self._check(name, "denoise", workflow.denoise)
            self._check(name, "decode", workflow.decode)
            for control in workflow.controls:
                self._check(name, "controlnet", control)

    def _check(self, workflow: str, kind: Kind, name: str) -> None:
        component = self.components.get(name)
        if component is None:
            known = ", ".join(self.components) or "none"
            raise ValueError(
                f"for {kind} of {workflow} one of the components ({known}), not {name}"
            )
        if component.kind != kind:
            raise ValueError(f"a component that can {kind} for {workflow}; {name} can not")

    def bytes_of(self, workflow: str) -> int:
        """Of all components of a workflow together."""
        return sum(self.components[name].bytes for name in self.workflows[workflow].components)

    def load_seconds_of(self, workflow: str) -> float:
        return sum(
            self.components[name].load_seconds for name in self.workflows[workflow].components
        )


def load_profile(file: Path) -> Profile:
    """Raises `InvalidRequest` naming the file, the field, its value and what is allowed."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidRequest(str(file), "its size", f"at most {MAX_BYTES} bytes")
        data: Any = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        allowed = f"a file that can be read ({error.strerror})"
        raise InvalidRequest("--profile", str(file), allowed) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("--profile", str(file), f"one JSON object ({error})") from error
    try:
        return msgspec.convert(data, Profile)
    except msgspec.ValidationError as error:
        raise refuse(str(file), data, error) from error


def encoded(profile: Profile) -> bytes:
    """What `load_profile` reads."""
    return msgspec.json.format(msgspec.json.encode(profile)) + b"\n"
