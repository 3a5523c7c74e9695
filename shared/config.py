"""Settings of a process, from `DARKROOM_*` variables. A bad value names its variable."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args, get_type_hints

import msgspec

from shared.byte_size import ByteSize
from shared.errors import Misconfigured
from shared.services import SERVICES, reading
from shared.shipped import DEFAULT_CONTROLS, DEFAULT_LORAS, DEFAULT_MODEL, located


class ReadBy(msgspec.Struct, frozen=True):
    """Which services look at a setting; `fleet` is the command line, `darkroom up` above all."""

    services: tuple[str, ...]


def at_least(least: int, unit: str) -> msgspec.Meta:
    """A whole number of `unit`."""
    return msgspec.Meta(ge=least, extra={"unit": unit})


Bytes = Annotated[int, at_least(0, "bytes")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9, extra={"unit": "seconds"})]
Interval = Annotated[float, msgspec.Meta(gt=0, le=1e9, extra={"unit": "seconds"})]
"""Seconds that have to pass."""

FLEET: Final = "fleet"
GATEWAY: Final = ReadBy(reading("http"))
ACCESS: Final = ReadBy((*reading("http"), FLEET))
"""What the gateway lets in; `darkroom up` looks whether it can."""
PLANNING: Final = ReadBy(reading("planning"))
DENOISING: Final = ReadBy(reading("denoising"))
LORAS: Final = ReadBy(reading("loras"))
"""Those that apply LoRAs."""
COMPUTING: Final = ReadBy(reading("tensors"))
"""Those that hold weights, and share tensors."""
LAID_OUT: Final = ReadBy((*reading("tensors"), FLEET))
"""By which `darkroom up` lays out a fleet, too."""
WORKING: Final = ReadBy(reading("work"))
"""Those that take work from queues."""
CATALOGUE: Final = ReadBy((*reading("catalogue"), FLEET))
"""Those that know what is served,"""
MODELS: Final = ReadBy((*reading("models"), FLEET))
CONTROLS: Final = ReadBy((*reading("controls"), FLEET))
"""and those that know of a part of it."""
EVERY: Final = ReadBy(tuple(SERVICES))
CONNECTING: Final = ReadBy((*SERVICES, FLEET))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is read from `DARKROOM_<FIELD>` in capitals; `docs/settings.md` is made of their
    types, defaults and docstrings (`make settings`)."""

    nats_url: Annotated[str, CONNECTING] = "nats://127.0.0.1:4222"
    """Where the bus is. The addresses of several servers of one cluster are separated by commas."""
    replicas: Annotated[int, at_least(1, "servers"), EVERY] = 1
    """How many servers of a cluster keep each stream; 3 survive the loss of one."""
    fleet: Annotated[str, EVERY] = ""
    """The name of the fleet that started this process, if placement says how many processes that
    has. `darkroom up --max-processes` sets it."""
    fleet_limits: Annotated[str, EVERY] = "{}"
    """The fewest and the most processes of that fleet by service, as JSON:
    `{"denoiser": [1, 4]}`. `darkroom up --max-processes` sets it."""
    models: Annotated[str, MODELS] = DEFAULT_MODEL
    """The models that are served: directories, hub ids or names of models that ship, separated as
    in PATH."""
    model_aliases: Annotated[str, CATALOGUE] = ""
    """Other names that requests may call models by: `ALIAS=MODEL`, separated by commas, with the
    name, hub id or path of a model that is served."""
    model_settings: Annotated[str, MODELS] = ""
    """A file (JSON) with the settings of models, by hub id, directory or name: see
    [models.md](models.md)."""
    loras: Annotated[str, CATALOGUE] = DEFAULT_LORAS
    """The directories of LoRAs (`<name>.safetensors`), separated as in PATH."""
    lora_bytes: Annotated[Bytes, LORAS] = 1024 * 1024 * 1024
    """How much of LoRAs a process keeps in memory for each of its models; and how much what they
    add to the weights may take for a moment, when that is prepared beside the steps."""
    lora_hosts: Annotated[str, CATALOGUE] = ""
    """The hosts that requests may have LoRAs fetched from, separated by commas: `host`, `host:port`
    or `*.domain` for https, `http://host` without it. Empty: none. Redirects have to stay on
    them."""
    lora_hub: Annotated[str, CATALOGUE] = "https://huggingface.co"
    """The model hub of hub ids. Requests may name them if its host is one of those."""
    lora_file_bytes: Annotated[Bytes, LORAS] = 1024 * 1024 * 1024
    """How large one fetched LoRA may be."""
    lora_seconds: Annotated[Interval, LORAS] = 50.0
    """How long fetching one may take, and its header as long; together this must be less than
    `DARKROOM_STALL_SECONDS`."""
    lora_dir: Annotated[Path, LORAS] = Path(f"/var/tmp/darkroom-loras-{os.getuid()}")
    """Where fetched LoRAs are kept, for all processes of this host. It must be nobody else's
    directory."""
    lora_disk_bytes: Annotated[Bytes, LORAS] = 8 * 1024 * 1024 * 1024
    """How much of fetched LoRAs is kept there."""
    weights_dir: Annotated[Path, COMPUTING] = Path(f"/var/tmp/darkroom-weights-{os.getuid()}")
    """Where weights lie that had to be converted, to `DARKROOM_DTYPE` above all, for all processes
    of this host: they map them from there, and share the memory. It must be nobody else's
    directory."""
    weights_disk_bytes: Annotated[Bytes, LAID_OUT] = 64 * 1024 * 1024 * 1024
    """How much of converted weights is kept there; those that were not loaded for longest leave. 0:
    none, and each process has a copy of converted weights for itself."""
    controls: Annotated[str, CONTROLS] = DEFAULT_CONTROLS
    """The ControlNets that are served: directories or hub ids, or folders of directories, separated
    as in PATH."""
    control_seconds: Annotated[Interval, DENOISING] = 30.0
    """After so long without an answer from any ControlNet, the rows that wait for it fail."""
    arena_dir: Annotated[Path, LAID_OUT] = Path(f"/dev/shm/darkroom-{os.getuid()}")
    """Where processes of this host keep tensors for each other: a directory in shared memory, and
    nobody else's. It has one file for each process."""
    arena_bytes: Annotated[int, at_least(1, "bytes"), LAID_OUT] = 256 * 1024 * 1024
    """How much of tensors one process keeps there. Work that needs more waits."""
    template_bytes: Annotated[Bytes, DENOISING] = 256 * 1024 * 1024
    """How much memory the activation caches of edited images may take, for all denoisers of this
    host together, in a directory beside `DARKROOM_ARENA_DIR`. 0: there are none, and edits with
    cached masks are computed in full."""
    template_disk_bytes: Annotated[Bytes, DENOISING] = 4 * 1024 * 1024 * 1024
    """How much disk the activation caches that had to leave memory may take. 0: they are
    dropped."""
    template_dir: Annotated[Path, DENOISING] = Path(f"/var/tmp/darkroom-templates-{os.getuid()}")
    """Where activation caches lie on disk. The directory must belong to the fleet's user alone."""
    audit_seconds: Annotated[Interval, COMPUTING] = 15.0
    """The pause between two looks for tensors of jobs that ended, whose release was missed."""
    arena_grace_seconds: Annotated[Seconds, COMPUTING] = 120.0
    """For so long the arena of a dead process stays readable: rows are resumed from it."""
    tensor_host: Annotated[str, COMPUTING] = ""
    """The address of this host at which the services of other hosts may pull tensors from it.
    Empty: all services are on one host."""
    tensor_port: Annotated[Port, COMPUTING] = 0
    """The port of that address. 0: a free one."""
    tensor_secret: Annotated[str, COMPUTING] = ""
    """A file with the secret that all hosts share, to prove themselves when they pull tensors."""
    credentials: Annotated[str, CONNECTING] = ""
    """The directory with this process's `nkey` for the bus, and `ca.crt` if the bus speaks TLS."""
    nats_monitor: Annotated[str, EVERY] = ""
    """The address of the monitoring port of a bus that is not the fleet's own
    (`http://host:8222`), to check at the start that it syncs what it acknowledges."""
    nats_sync: Annotated[Literal["", "always"], EVERY] = ""
    """`always`: the operator vouches for `sync_interval: always` on such a bus."""
    tokens: Annotated[str, ACCESS] = ""
    """A file with the hashes of the bearer tokens that the gateway accepts. Empty: it asks for
    none."""
    http_cert: Annotated[str, ACCESS] = ""
    """The certificate (chain), as a PEM file, with which the gateway speaks TLS."""
    http_key: Annotated[str, ACCESS] = ""
    """The key of that certificate, as a PEM file."""
    cors_origins: Annotated[str, ACCESS] = ""
    """The origins whose web pages may use the gateway, separated by commas:
    `https://studio.example`, `https://*.example.org` for all hosts below a domain, or `*` for any
    page. Empty: none."""
    trusted_proxies: Annotated[str, ACCESS] = ""
    """The addresses and networks, separated by commas, whose `X-Forwarded-*` headers the gateway
    believes. Empty: nobody's."""
    memory: Annotated[ByteSize, COMPUTING] = ByteSize("0")
    """How many bytes of weights a process holds at a time, such as `24GB` or `512MiB`; what does
    not fit beside the others waits until one of them leaves. 0: nine tenths of the memory of the
    device, or of the machine."""
    memory_budget: Annotated[Bytes, COMPUTING] = 0
    """The resident memory above which a process takes no more work; weights count in full, whether
    or not other processes share their pages. 0: any. A process that is over 95% of it before any
    work does not start."""
    threads: Annotated[int, at_least(0, "threads"), LAID_OUT] = 0
    """How many threads torch uses in this process. 0: as torch decides; `darkroom up` decides by
    the machine."""
    device: Annotated[str, LAID_OUT] = "cpu"
    """The torch device that computes, such as `cpu` or `cuda`."""
    dtype: Annotated[Literal["float32", "float16", "bfloat16"], COMPUTING] = "float32"
    """The type of numbers that weights are loaded as and computed in."""
    load_bytes_per_second: Annotated[int, at_least(0, "bytes per second"), COMPUTING] = 0
    """How many bytes a second this process brings at most from disk to memory, and from there to
    its device, of components, LoRAs and activation caches together: so a slow disk or bus can be
    measured anywhere. 0: as many as come."""
    max_rows: Annotated[int, at_least(1, "rows"), DENOISING] = 32
    """How many rows (images) a denoiser takes into one step."""
    max_step_seconds: Annotated[Interval, DENOISING] = 10.0
    """How long one denoising step may take at most, as it is predicted."""
    deadline_margin: Annotated[Seconds, ReadBy(("planner", "denoiser"))] = 0.1
    """How long before a job's deadline its denoising should be over: decoding follows."""
    checkpoint_every: Annotated[int, at_least(1, "steps"), DENOISING] = 5
    """How many steps lie between two checkpoints of a row, at least."""
    checkpoint_seconds: Annotated[Seconds, DENOISING] = 1.0
    """How long those steps took, at least; a row that was lost before is not spared."""
    ack_wait: Annotated[Interval, WORKING] = 10.0
    """The lease: after so long without a sign of life, a node's work goes to another process."""
    stall_seconds: Annotated[Interval, WORKING] = 120.0
    """After so long without progress (a finished step, above all) a process gives no more signs of
    life for a node; it ends itself when others must have the node by then. It must be at least the
    time that the slowest single step, encoding or decoding takes."""
    drain_seconds: Annotated[Seconds, WORKING] = 5.0
    """What is running when a process is asked to leave may take this long to finish."""
    poll_seconds: Annotated[Interval, WORKING] = 2.0
    """The longest wait of one fetch, and so for a quiet process to leave: fetches are not
    cancelled."""
    backlog_jobs: Annotated[int, at_least(1, "jobs"), PLANNING] = 4096
    """How many jobs may wait in one planner to be released; above that, those without a deadline
    are refused."""
    backlog_bytes: Annotated[int, at_least(1, "bytes"), PLANNING] = 1 << 30
    """How many bytes the jobs that wait in one planner may have together."""
    user_backlog_jobs: Annotated[int, at_least(1, "jobs"), PLANNING] = 1024
    """How many of them may be of one user."""
    user_backlog_bytes: Annotated[int, at_least(1, "bytes"), PLANNING] = 1 << 28
    """How many bytes the waiting jobs of one user may have."""
    max_queued: Annotated[int, at_least(1, "nodes"), PLANNING] = 1024
    """How many nodes may wait for one model; above that, new jobs are refused."""
    http_host: Annotated[str, GATEWAY] = "127.0.0.1"
    """Where the gateway listens; `darkroom up` has `--host` instead."""
    http_port: Annotated[Port, ACCESS] = 8080
    """The gateway's port. 0: a free one."""

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(located(part) for part in self.models.split(os.pathsep) if part)

    @property
    def control_sources(self) -> tuple[str, ...]:
        return tuple(part for part in self.controls.split(os.pathsep) if part)

    @property
    def lora_directories(self) -> tuple[str, ...]:
        return tuple(part for part in self.loras.split(os.pathsep) if part)

    @property
    def template_memory(self) -> Path:
        return self.arena_dir.with_name(f"{self.arena_dir.name}-templates")

    @property
    def lora_origins(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.lora_hosts.split(",") if part.strip())

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> "Settings":
        """Raises `Misconfigured` naming the variable whose value does not fit."""
        given = {
            name: environ[f"DARKROOM_{name.upper()}"]
            for name in Settings.__struct_fields__
            if f"DARKROOM_{name.upper()}" in environ
        }
        try:
            return msgspec.convert(
                given, Settings, strict=False, dec_hook=lambda kind, value: kind(value)
            )
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$.")
            field = path.rstrip("`")
            if choices := [text for text in get_args(get_type_hints(Settings)[field]) if text]:
                reason = f"allowed: {', '.join(choices)}"
            name = f"DARKROOM_{field.upper()}"
            raise Misconfigured(f"{name}={environ.get(name)!r}: {reason}") from error
