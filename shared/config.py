"""Settings of a process, from `DARKROOM_*` variables. A bad value names its variable."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

import msgspec

from shared.errors import Misconfigured
from shared.shipped import DEFAULT_CONTROLS, DEFAULT_LORAS, DEFAULT_MODEL, located

Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Interval = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
"""Seconds that have to pass."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is read from `DARKROOM_<FIELD>` in capitals."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Several servers of one cluster are separated by commas."""
    replicas: Positive = 1
    """Servers of a cluster that keep each stream; 3 survive the loss of one."""
    models: str = DEFAULT_MODEL
    """Directories, hub ids or names of models that ship, separated as in PATH."""
    model_aliases: str = ""
    """Other names that requests may call models by: `ALIAS=MODEL`, separated by commas, with the
    name, hub id or path of a model that is served."""
    model_settings: str = ""
    """File (JSON) with the settings of models, by hub id, directory or name: see docs/models.md."""
    loras: str = DEFAULT_LORAS
    """Directories of LoRAs (`<name>.safetensors`), separated as in PATH."""
    lora_bytes: Natural = 1024 * 1024 * 1024
    """LoRAs that a process keeps in memory for each of its models."""
    lora_hosts: str = ""
    """Hosts that requests may have LoRAs fetched from, separated by commas: `host`, `host:port` or
    `*.domain` for https, `http://host` without it. Empty: none. Redirects have to stay on them."""
    lora_hub: str = "https://huggingface.co"
    """The model hub of hub ids; they may be named if its host is one of those."""
    lora_file_bytes: Natural = 1024 * 1024 * 1024
    """Of one fetched LoRA, at most."""
    lora_seconds: Interval = 50.0
    """For one to be fetched, and as long for its header; together less than `stall_seconds`."""
    lora_dir: Path = Path(f"/var/tmp/darkroom-loras-{os.getuid()}")
    """Where fetched LoRAs are kept, for all processes of this host; nobody else's directory."""
    lora_disk_bytes: Natural = 8 * 1024 * 1024 * 1024
    """Of all of them there."""
    controls: str = DEFAULT_CONTROLS
    """Directories or hub ids of ControlNets, or folders of directories, separated as in PATH."""
    control_seconds: Interval = 30.0
    """After so long without an answer from any ControlNet the rows that wait for it fail."""
    arena_dir: Path = Path(f"/dev/shm/darkroom-{os.getuid()}")
    arena_bytes: Positive = 256 * 1024 * 1024
    template_bytes: Natural = 256 * 1024 * 1024
    """Of what was computed of edited pictures, in memory for all denoisers of this host, in a
    directory beside `arena_dir`; 0: none, cached masks are computed in full."""
    template_disk_bytes: Natural = 4 * 1024 * 1024 * 1024
    """Of what had to leave memory; 0: it is dropped."""
    template_dir: Path = Path(f"/var/tmp/darkroom-templates-{os.getuid()}")
    """Where that is kept; nobody else's directory."""
    audit_seconds: Interval = 15.0
    """Between two looks for slots of jobs that ended, whose release was missed."""
    arena_grace_seconds: Seconds = 120.0
    """For so long the arena of a dead process stays readable: rows are resumed from it."""
    tensor_host: str = ""
    """Address of this host at which the services of other hosts may pull tensors from it. Empty:
    one host only."""
    tensor_port: Port = 0
    """0: a free one."""
    tensor_secret: str = ""
    """File with the secret that all hosts share, to prove themselves when they pull tensors."""
    credentials: str = ""
    """Directory with this process's `nkey` for the bus, and `ca.crt` if the bus speaks TLS."""
    nats_monitor: str = ""
    """Address of the monitoring port of a bus that is not our own (http://host:8222), to check at
    the start that it syncs what it acknowledges."""
    nats_sync: Literal["", "always"] = ""
    """`always`: the operator vouches for `sync_interval: always` on such a bus."""
    tokens: str = ""
    """File with the hashes of the bearer tokens that the gateway accepts; empty: anybody."""
    http_cert: str = ""
    """Certificate (chain) and key, as PEM files, with which the gateway speaks TLS."""
    http_key: str = ""
    cors_origins: str = ""
    """Origins whose web pages may use the gateway, separated by commas: `https://studio.example`,
    `https://*.example.org` for all hosts below a domain, or `*` for any page. Empty: none."""
    trusted_proxies: str = ""
    """Addresses and networks, separated by commas, whose `X-Forwarded-*` headers the gateway
    believes; empty: nobody's."""
    memory_budget: Natural = 0
    """Bytes of resident memory above which a process takes no more work; 0: any. One that is over
    95% of it before any work does not start."""
    threads: Natural = 0
    """torch threads of this process; 0: as torch decides."""
    device: str = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_rows: Positive = 32
    """Rows a denoiser takes into one step."""
    max_step_seconds: Interval = 10.0
    """Predicted time that one denoising step may take at most."""
    deadline_margin: Seconds = 0.1
    """Seconds before a job's deadline at which its denoising should be over: decoding follows."""
    checkpoint_every: Positive = 5
    """Steps between two checkpoints of a row, at least."""
    checkpoint_seconds: Seconds = 1.0
    """Seconds that those steps took, at least; a row that was lost before is not spared."""
    ack_wait: Interval = 10.0
    """The lease: seconds without a sign of life after which a node's work goes to another."""
    stall_seconds: Interval = 120.0
    """Seconds without progress (a finished step, above all) after which a process gives no more
    signs of life for a node; it ends itself when others must have the node by then. At least the
    time that the slowest single step, encoding or decoding takes."""
    drain_seconds: Seconds = 5.0
    """What is running when a process is asked to leave may take this long to finish."""
    poll_seconds: Interval = 2.0
    """Longest wait of one fetch, and so for a quiet process to leave: fetches are not cancelled."""
    max_queued: Positive = 1024
    """Nodes waiting for one model, above which new jobs are refused."""
    http_host: str = "127.0.0.1"
    http_port: Port = 8080
    """0: a free one."""

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(located(part) for part in self.models.split(os.pathsep) if part)

    @property
    def control_sources(self) -> tuple[str, ...]:
        return tuple(part for part in self.controls.split(os.pathsep) if part)

    @property
    def shelf(self) -> tuple[str, ...]:
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
