"""Settings of a process, from `DARKROOM_*` variables. A bad value names its variable."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from shared.errors import Misconfigured
from shared.shipped import DEFAULT_CONTROLS, DEFAULT_LORAS, DEFAULT_MODEL, located


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is read from `DARKROOM_<FIELD>` in capitals."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Several servers of one cluster are separated by commas."""
    replicas: int = 1
    """Servers of a cluster that keep each stream; 3 survive the loss of one."""
    models: str = DEFAULT_MODEL
    """Directories, hub ids or names of models that ship, separated as in PATH."""
    loras: str = DEFAULT_LORAS
    """Directories of LoRAs (`<name>.safetensors`), separated as in PATH."""
    lora_bytes: int = 1024 * 1024 * 1024
    """LoRAs that a process keeps in memory for each of its models."""
    lora_hosts: str = ""
    """Hosts that requests may have LoRAs fetched from, separated by commas: `host`, `host:port` or
    `*.domain` for https, `http://host` without it. Empty: none. Redirects have to stay on them."""
    lora_hub: str = "https://huggingface.co"
    """The model hub of hub ids; they may be named if its host is one of those."""
    lora_file_bytes: int = 1024 * 1024 * 1024
    """Of one fetched LoRA, at most."""
    lora_seconds: float = 50.0
    """For one to be fetched, and as long for its header; together less than `stall_seconds`."""
    lora_dir: Path = Path(f"/var/tmp/darkroom-loras-{os.getuid()}")
    """Where fetched LoRAs are kept, for all processes of this host; nobody else's directory."""
    lora_disk_bytes: int = 8 * 1024 * 1024 * 1024
    """Of all of them there."""
    controls: str = DEFAULT_CONTROLS
    """Directories or hub ids of ControlNets, or folders of directories, separated as in PATH."""
    control_seconds: float = 30.0
    """After so long without an answer from any ControlNet the rows that wait for it fail."""
    arena_dir: Path = Path(f"/dev/shm/darkroom-{os.getuid()}")
    arena_bytes: int = 256 * 1024 * 1024
    template_bytes: int = 256 * 1024 * 1024
    """Of what was computed of edited pictures, in memory for all denoisers of this host, in a
    directory beside `arena_dir`; 0: none, cached masks are computed in full."""
    template_disk_bytes: int = 4 * 1024 * 1024 * 1024
    """Of what had to leave memory; 0: it is dropped."""
    template_dir: Path = Path(f"/var/tmp/darkroom-templates-{os.getuid()}")
    """Where that is kept; nobody else's directory."""
    audit_seconds: float = 15.0
    """Between two looks for slots of jobs that ended, whose release was missed."""
    arena_grace_seconds: float = 120.0
    """For so long the arena of a dead process stays readable: rows are resumed from it."""
    tensor_host: str = ""
    """Address of this host at which the services of other hosts may pull tensors from it. Empty:
    one host only."""
    tensor_port: int = 0
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
    memory_budget: int = 0
    """Bytes of resident memory above which a process takes no more work; 0: any."""
    threads: int = 0
    """torch threads of this process; 0: as torch decides."""
    device: str = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_rows: int = 32
    """Rows a denoiser takes into one step."""
    max_step_seconds: float = 10.0
    """Predicted time that one denoising step may take at most."""
    deadline_margin: float = 0.1
    """Seconds before a job's deadline at which its denoising should be over: decoding follows."""
    checkpoint_every: int = 5
    """Steps between two checkpoints of a row, at least."""
    checkpoint_seconds: float = 1.0
    """Seconds that those steps took, at least; a row that was lost before is not spared."""
    ack_wait: float = 10.0
    """The lease: seconds without a sign of life after which a node's work goes to another."""
    stall_seconds: float = 120.0
    """Seconds without progress (a finished step, above all) after which a process gives no more
    signs of life for a node; it ends itself when others must have the node by then. At least the
    time that the slowest single step, encoding or decoding takes."""
    drain_seconds: float = 5.0
    """What is running when a process is asked to leave may take this long to finish."""
    poll_seconds: float = 2.0
    """Longest wait of one fetch, and so for a quiet process to leave: fetches are not cancelled."""
    max_queued: int = 1024
    """Nodes waiting for one model, above which new jobs are refused."""
    http_host: str = "127.0.0.1"
    http_port: int = 8080
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
            name = f"DARKROOM_{path.rstrip('`').upper()}"
            raise Misconfigured(f"{name}={environ.get(name)!r}: {reason}") from error
