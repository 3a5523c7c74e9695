"""`darkroom keys`: a directory with everything that proves who is who in a fleet.

    nats/       authorization.conf, and server.crt, server.key where the bus speaks TLS
    SERVICE/    nkey, and ca.crt where the bus speaks TLS; all that a process of it needs
    gateway/    also tokens (hashes), and tls.crt, tls.key
    client/     also token, for HTTP

Each part can be given to its process alone. What exists stays, but for the authorization, which
follows from the keys, the models and the ControlNets: to replace a key, remove it and run the
command again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.fleet.access.certificates import issue
from services.fleet.access.permissions import HOLDERS, permissions
from shared.bus.embedded import SIGN_IN_SECONDS, ServerAccess
from shared.errors import Misconfigured
from shared.security.keys import CA_FILE, SEED_FILE, TOKEN_FILE, Credentials, new_seed
from shared.security.private_files import private_directory, write_private
from shared.security.tokens import add_token
from shared.services import Served

AUTHORIZATION: Final = "authorization.conf"
SERVER: Final = ("server.crt", "server.key")
GATEWAY: Final = ("tls.crt", "tls.key")
TOKENS: Final = "tokens"
FIRST_TOKEN: Final = "default"


def make_keys(directory: Path, served: Served, hosts: Sequence[str]) -> list[Path]:
    """Make what is missing in `directory`; `hosts`, if any, are the names that certificates are
    for. Returns the files written. Raises `Misconfigured` unless `directory` is ours alone."""
    private_directory(directory)
    written: list[Path] = []
    for part in ("nats", *HOLDERS):
        private_directory(directory / part)
    for holder in HOLDERS:
        seed = directory / holder / SEED_FILE
        if not seed.exists():
            written.append(_write(seed, new_seed() + "\n"))
    if not (directory / "gateway" / TOKENS).exists():
        token = add_token(directory / "gateway" / TOKENS, FIRST_TOKEN, interactive=True)
        written.append(directory / "gateway" / TOKENS)
        written.append(_write(directory / "client" / TOKEN_FILE, token + "\n"))
    if hosts:
        written += _certify(directory, hosts)
    written.append(write_authorization(directory, served))
    return written


def write_authorization(directory: Path, served: Served) -> Path:
    """The block that tells nats-server who may do what."""
    return _write(directory / "nats" / AUTHORIZATION, _authorization(directory, served))


def _authorization(directory: Path, served: Served) -> str:
    holders = {holder: Credentials.of_directory(directory / holder).public for holder in HOLDERS}
    return render_authorization(holders, served)


def fleet_access(directory: Path, served: Served) -> ServerAccess:
    """As `server_access`, of the bus of a fleet that serves this: the authorization is made anew
    where it says otherwise."""
    file = directory / "nats" / AUTHORIZATION
    content = _authorization(directory, served)
    if not file.exists() or file.read_text() != content:
        _write(file, content)
    return server_access(directory)


def render_authorization(holders: Mapping[str, str], served: Served) -> str:
    """`holders`: service → public key. Default-deny: a user may do what is listed, no more."""
    users = [_render_user(holder, key, served) for holder, key in holders.items()]
    # A fleet that comes back all at once on few cores needs more than the usual two seconds.
    head = f"authorization {{\n  timeout: {SIGN_IN_SECONDS}\n  users: [\n"
    return head + "".join(users) + "  ]\n}\n"


def _render_user(holder: str, key: str, served: Served) -> str:
    granted = permissions(holder, key, served)
    return f"""    {{ # {holder}
      nkey: {key}
      permissions: {{
        publish: {{ allow: {json.dumps(sorted(granted.publish))} }}
        subscribe: {{ allow: {json.dumps(sorted(granted.subscribe))} }}
        allow_responses: {{ max: 1, expires: "1m" }}
      }}
    }}
"""


def server_access(directory: Path) -> ServerAccess:
    """What nats-server needs, from its own part of a directory of keys."""
    part = directory / "nats"
    if not (part / AUTHORIZATION).exists():
        raise Misconfigured(
            f"{part} holds no {AUTHORIZATION}: make it with darkroom keys {directory}"
        )
    certificate, key = (part / name for name in SERVER)
    tls = (certificate, key) if certificate.exists() else (None, None)
    return ServerAccess((part / AUTHORIZATION).read_text(), *tls)


def _certify(directory: Path, hosts: Sequence[str]) -> list[Path]:
    """One authority, used here and then forgotten, signs for the bus and for the gateway."""
    places = [directory / "nats" / name for name in SERVER]
    places += [directory / "gateway" / name for name in GATEWAY]
    if all(place.exists() for place in places):
        return []
    authority, pairs = issue(hosts, len(places) // 2)
    contents = [pem for pair in pairs for pem in pair]
    written = [_write(place, pem) for place, pem in zip(places, contents, strict=True)]
    return written + [_write(directory / holder / CA_FILE, authority) for holder in HOLDERS]


def _write(path: Path, content: str) -> Path:
    write_private(path, content.encode())
    return path
