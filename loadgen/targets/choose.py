"""Which target a run speaks to: what the command line says, else the fleet that runs here."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from loadgen.targets.base import HTTP_FIELDS, OPENAI_FIELDS, Target
from shared.errors import InvalidRequest, Misconfigured
from shared.keys import Credentials
from shared.private_files import read_private

Kind = Literal["darkroom", "openai", "nats"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
KEY_VARIABLES: Final = {"darkroom": "DARKROOM_TOKEN", "openai": "OPENAI_API_KEY"}
"""Where a token is found that the command line does not give: nobody is sent another's."""
NATS_SCHEMES: Final = ("nats://", "tls://")
HTTP_SCHEMES: Final = ("http://", "https://")


class TargetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`also`: fields that a plain server takes beyond OpenAI's."""

    kind: Kind
    url: str
    api_key: str | None = None
    also: frozenset[str] = frozenset()
    credentials: Credentials | None = None
    """Of a client of the fleet that runs here; None: what the environment says."""


def chosen(
    kind: str | None, url: str | None, *, api_key: str | None = None, also: frozenset[str]
) -> TargetOptions:
    """Raises `InvalidRequest` for a kind there is none of, and `Misconfigured` if nothing says
    where the server is."""
    if kind is not None and kind not in KINDS:
        raise InvalidRequest("--target", kind, "one of " + ", ".join(KINDS))
    if kind is None:
        kind = "nats" if url is not None and url.startswith(NATS_SCHEMES) else "darkroom"
    found, credentials, token = (url, None, None) if url else _running(kind)
    options = TargetOptions(
        kind=msgspec.convert(kind, Kind),
        url=found,
        api_key=api_key or os.environ.get(KEY_VARIABLES.get(kind, "")) or token,
        also=also,
        credentials=credentials,
    )
    schemes = NATS_SCHEMES if kind == "nats" else HTTP_SCHEMES
    if not options.url.startswith(schemes):
        allowed = f"for {kind}, an address that begins with {' or '.join(schemes)}"
        raise InvalidRequest("--url", options.url, allowed)
    return options


def _running(kind: str) -> tuple[str, Credentials, str | None]:
    """The address of the fleet that runs on this machine; a client's key and token for it."""
    from services.fleet import state
    from services.fleet.keys import TOKEN

    if kind == "openai":
        raise Misconfigured("where is the server? give its address with --url")
    fleet = state.read(state.state_directory())
    if fleet is None:
        raise Misconfigured("no fleet is running here; start one with: darkroom up, or give --url")
    credentials = fleet.credentials("client")
    if kind == "nats":
        return fleet.nats_url, credentials, None
    if not fleet.http:
        raise Misconfigured("the fleet that runs here has no gateway; try --target nats")
    token = Path(fleet.keys) / "client" / TOKEN
    known = fleet.keys and token.exists()
    secret = read_private(token, "the token").decode().strip() if known else None
    return fleet.local_url, credentials, secret


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
        api_key=options.api_key,
        ca=options.credentials.ca if options.credentials else None,
    )
