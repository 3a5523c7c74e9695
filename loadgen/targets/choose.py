"""Which target a run speaks to: what the command line says, else the fleet that runs here."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from loadgen.targets.base import HTTP_FIELDS, OPENAI_FIELDS, Target
from loadgen.targets.images import ResponseFormat
from shared.client import fleet_state
from shared.errors import InvalidRequest, Misconfigured
from shared.security.binding import is_loopback
from shared.security.keys import CA_FILE, TOKEN_FILE, VARIABLE, Credentials
from shared.security.private_files import read_private

Kind = Literal["darkroom", "openai", "nats"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
KEY_VARIABLES: Final = {"darkroom": "DARKROOM_TOKEN", "openai": "OPENAI_API_KEY"}
"""Where a token is found that the command line does not give: nobody is sent another's."""
NATS_SCHEMES: Final = ("nats://", "tls://")
HTTP_SCHEMES: Final = ("http://", "https://")
FORMATS: Final[tuple[ResponseFormat, ...]] = get_args(ResponseFormat)
LEFT_OUT: Final = "none"
CLIENT: Final = "client"
"""Whose part of a fleet's keys a load generator needs."""


class TargetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`also`: fields that a plain server takes beyond OpenAI's. `response_format`: how images are
    asked for over HTTP; None: it is not said."""

    kind: Kind
    url: str
    api_key: str | None = None
    also: frozenset[str] = frozenset()
    response_format: ResponseFormat | None = "b64_json"
    credentials: Credentials | None = None
    """On a bus, a client's of the fleet that runs here; None: what the environment says."""
    ca: Path | None = None
    """Over HTTP, an authority to trust beside those of the system."""
    certificate: Path | None = None
    """Over HTTP, the one that the fleet that runs here shows: no other counts, by any name."""


def chosen(
    kind: str | None,
    url: str | None,
    *,
    api_key: str | None = None,
    also: frozenset[str],
    response_format: str | None = None,
) -> TargetOptions:
    """The keys of the fleet that runs here are found, also if `url` is one of its addresses; else
    those in the directory that DARKROOM_CREDENTIALS names.

    Raises `InvalidRequest` for a kind there is none of, and `Misconfigured` if nothing says where
    the server is."""
    if kind is not None and kind not in KINDS:
        raise InvalidRequest("--target", kind, "one of " + ", ".join(KINDS))
    if kind is None:
        kind = "nats" if url is not None and url.startswith(NATS_SCHEMES) else "darkroom"
    fleet = fleet_state.running_at(url)
    address = url or _address(kind, fleet)
    schemes = NATS_SCHEMES if kind == "nats" else HTTP_SCHEMES
    if not address.startswith(schemes):
        allowed = f"for {kind}, an address that begins with {' or '.join(schemes)}"
        raise InvalidRequest("--url", address, allowed)
    if kind == "nats":
        _refuse_format(response_format)
        credentials = fleet.credentials("client") if fleet else None
        return TargetOptions(kind="nats", url=address, also=also, credentials=credentials)
    keys = _http_keys(address, kind, fleet)
    # A fleet's token is for its gateway, whatever kind of server that is taken for.
    variable = KEY_VARIABLES["darkroom" if fleet else kind]
    return TargetOptions(
        kind=msgspec.convert(kind, Kind),
        url=address,
        api_key=api_key or os.environ.get(variable) or (_token(keys) if keys else None),
        also=also,
        response_format=_format(response_format),
        ca=_ca(keys) if keys else None,
        certificate=Path(fleet.http_certificate) if fleet and fleet.http_certificate else None,
    )


def _address(kind: str, fleet: fleet_state.FleetState | None) -> str:
    """Of the fleet that runs here."""
    if kind == "openai":
        raise Misconfigured("where is the server? give its address with --url")
    if fleet is None:
        raise Misconfigured("no fleet is running here; start one with: darkroom up, or give --url")
    if kind == "nats":
        return fleet.nats_url
    if not fleet.http:
        raise Misconfigured("the fleet that runs here has no gateway; try --target nats")
    return fleet.local_url


def _http_keys(url: str, kind: str, fleet: fleet_state.FleetState | None) -> Path | None:
    """The directory of a client of the gateway at `url`. What the environment names is another
    fleet's, perhaps, so its token is not sent where others could read it, nor to a plain server."""
    if fleet is not None:
        return Path(fleet.keys) / CLIENT if fleet.keys else None
    given = os.environ.get(VARIABLE, "")
    private = url.startswith("https://") or is_loopback(urlsplit(url).hostname or "")
    return Path(given) if given and kind == "darkroom" and private else None


def _token(keys: Path) -> str | None:
    file = keys / TOKEN_FILE
    return read_private(file, "the token").decode().strip() if file.exists() else None


def _ca(keys: Path) -> Path | None:
    file = keys / CA_FILE
    return file if file.exists() else None


def _format(given: str | None) -> ResponseFormat | None:
    if given is None:
        return "b64_json"
    if given == LEFT_OUT:
        return None
    for known in FORMATS:
        if given == known:
            return known
    raise InvalidRequest("--response-format", given, ", ".join((*FORMATS, LEFT_OUT)))


def _refuse_format(given: str | None) -> None:
    if given is not None:
        allowed = "nothing beside --target nats, where images are never text"
        raise InvalidRequest("--response-format", given, allowed)


def connect(options: TargetOptions) -> AbstractAsyncContextManager[Target]:
    """The target itself; entering it may raise `BusUnavailable` or `InvalidRequest`."""
    # What a run does not need is not imported: aiohttp and nats take their time.
    if options.kind == "nats":
        from loadgen.targets.nats import NatsTarget

        return NatsTarget.connect(options.url, options.credentials)
    from loadgen.targets.http import HttpTarget

    takes = HTTP_FIELDS if options.kind == "darkroom" else OPENAI_FIELDS | options.also
    return HttpTarget.connect(
        options.url,
        kind=options.kind,
        takes=takes,
        response_format=options.response_format,
        api_key=options.api_key,
        ca=options.ca,
        certificate=options.certificate,
    )
