"""What is wrong with the options of a fleet, as far as it can be known before anything is started:
one sentence that names the option, and no log to look for it in."""

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.fleet.access.keys import server_access
from services.fleet.plan.processes import FleetOptions, plan_processes
from services.gateway.http.access import AccessControl
from shared.config import Settings
from shared.errors import DarkroomError, Misconfigured
from shared.models.catalogue import Catalogue
from shared.models.files.directory import is_hub_id
from shared.models.names import parse_aliases
from shared.security.keys import Credentials
from shared.tensors.arena_file import refuse_too_small

BUS_HOST = "127.0.0.1"


def refuse_unusable(
    options: FleetOptions, nats_port: int | None, environ: Mapping[str, str] = os.environ
) -> None:
    """Raises `Misconfigured`."""
    settings = Settings.from_env(environ)
    with naming("--model"):
        served = Catalogue.load(options.models, settings_file=settings.model_settings)
    served.with_aliases(parse_aliases(settings.model_aliases))
    _refuse_absent("DARKROOM_LORAS", settings.lora_directories, environ)
    _refuse_absent("DARKROOM_CONTROLS", settings.control_sources, environ)
    with naming("DARKROOM_ARENA_DIR"):
        refuse_too_small(settings.arena_dir, settings.arena_bytes)
    if options.keys is not None:
        with naming("--keys"):
            server_access(options.keys)
            Credentials.of_directory(options.keys / "admin")
    if nats_port is not None:
        free_port(BUS_HOST, nats_port, "--nats-port")
    _refuse_gateway(options, environ)


def free_port(host: str, port: int = 0, option: str = "--port") -> int:
    """A port of `host` on which nobody listens now: `port`, if it is not 0. Raises `Misconfigured`
    if there is none."""
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address[:2], family=family) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        number = error.errno or 0  # negative: of getaddrinfo
        reason = os.strerror(number) if number > 0 else error.strerror
        if number in (errno.EADDRINUSE, errno.EACCES):
            raise Misconfigured(
                f"{option} {port} of {host} cannot be had: {reason}; choose another"
            ) from error
        raise Misconfigured(
            f"--host {host!r} is no address of this machine: {reason}; allowed: 127.0.0.1, or an "
            "address or name that this machine has"
        ) from error


def _refuse_absent(variable: str, sources: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """What the user named has to be there; of what is there by default, nothing has to."""
    for source in sources if variable in environ else ():
        if not Path(source).is_dir() and (variable == "DARKROOM_LORAS" or not is_hub_id(source)):
            raise Misconfigured(f"{variable} names {source!r}, which is no directory")


def _refuse_gateway(options: FleetOptions, environ: Mapping[str, str]) -> None:
    """What the gateway would find wrong with its own environment."""
    gateways = [s for s in plan_processes(options, "", environ) if s.service == "gateway"]
    for spec in gateways[:1]:
        host = options.http_host
        free_port(host, options.http_port)
        access = AccessControl.of(Settings.from_env(spec.environment))
        with naming("--host", f"darkroom keys DIR --tls {host} and --keys DIR bring all of it"):
            access.refuse_unprotected(host)


@contextmanager
def naming(option: str, advice: str = "") -> Iterator[None]:
    """What is raised within is about `option`."""
    try:
        yield
    except DarkroomError as error:
        message = "; ".join(part for part in (error.message, advice) if part)
        raise Misconfigured(f"{option}: {message}") from error
