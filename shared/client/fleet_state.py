"""How a running fleet is found: a small file in a private directory, void once its writer ended."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from shared.client.addresses import same_place
from shared.errors import Misconfigured
from shared.security.keys import ANONYMOUS, Credentials
from shared.security.private_files import private_directory
from shared.tensors.owners import start_time

STATE_FILE: Final = "fleet.json"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One supervised process. `pid` is None between an exit and the next start."""

    name: str
    pid: int | None
    state: str
    restarts: int
    why: str = ""
    """How it ended last, while it is not ready again."""


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """What others need to know of a running fleet."""

    pid: int
    started: int
    """Clock ticks after boot: a later process may have the same pid, but not both."""
    nats_url: str
    http: str
    """`host:port` of the gateway, empty if there is none."""
    logs: str
    models: tuple[str, ...]
    """Directories or hub ids."""
    members: tuple[Member, ...]
    http_url: str = ""
    http_certificate: str = ""
    """File of the gateway's certificate where that is the operator's own; empty: it has none, or
    one whose authority is in `keys`."""
    keys: str = ""
    """Directory of its keys, empty if whoever reaches its bus may use it."""

    def credentials(self, holder: str) -> Credentials:
        """Those of `holder` on this fleet's bus."""
        return Credentials.of_directory(Path(self.keys) / holder) if self.keys else ANONYMOUS

    @property
    def local_url(self) -> str:
        """Of the gateway from this machine: one that listens everywhere is not called so by its
        certificate. Empty if there is none."""
        url = self._gateway_url
        return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")

    def is_at(self, url: str) -> bool:
        """Whether `url` is one of its gateway or of its bus: a caller need not be told its keys."""
        return same_place(url, self._gateway_url) or same_place(url, self.nats_url)

    @property
    def _gateway_url(self) -> str:
        return self.http_url or (self.http and f"http://{self.http}")

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """DARKROOM_STATE_DIR, or this user's runtime directory, or a private temporary one."""
    if given := environ.get("DARKROOM_STATE_DIR"):
        return private_directory(Path(given))
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return private_directory(Path(runtime) / "darkroom")
    return private_directory(Path(tempfile.gettempdir()) / f"darkroom-{os.geteuid()}")


def read(directory: Path) -> FleetState | None:
    """The fleet that runs now, if one does. What a dead fleet left, or what is no state file, is
    as good as none."""
    try:
        state = msgspec.json.decode((directory / STATE_FILE).read_bytes(), type=FleetState)
    except (OSError, msgspec.DecodeError):
        return None
    return state if state.alive else None


def running_at(url: str | None, environ: Mapping[str, str] = os.environ) -> FleetState | None:
    """The fleet that runs here, if `url` is None or one of its own addresses. Raises
    `Misconfigured` only if there is no other way to find a fleet."""
    try:
        running = read(state_directory(environ))
    except Misconfigured:
        if url is None:
            raise
        return None
    return running if running is not None and (url is None or running.is_at(url)) else None


def refuse_second(directory: Path) -> None:
    """Raises `Misconfigured` if another fleet runs here."""
    other = read(directory)
    if other is not None and other.pid != os.getpid():
        raise Misconfigured(
            f"a fleet runs already (pid {other.pid}, {other.nats_url}); stop it, or set "
            "DARKROOM_STATE_DIR to another directory"
        )


def write(directory: Path, state: FleetState) -> None:
    """Replace the file in one step. Raises `Misconfigured` if another fleet runs here."""
    refuse_second(directory)
    new = directory / f"{STATE_FILE}.{state.pid}"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    new.replace(directory / STATE_FILE)


def clear(directory: Path) -> None:
    """Remove our own file."""
    state = read(directory)
    if state is not None and state.pid == os.getpid():
        (directory / STATE_FILE).unlink()
