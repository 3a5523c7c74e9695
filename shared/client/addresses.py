"""Whether two addresses lead to the same listener, however its host is called."""

import ipaddress
import socket
from typing import Final
from urllib.parse import SplitResult, urlsplit

SCHEMES: Final = {"http": ("http", 80), "https": ("https", 443), "nats": ("nats", 4222)}
"""What a scheme speaks, and its port where none is given."""
ALIASES: Final = {"tls": "nats"}
"""A bus under TLS is called by either."""


def same_place(url: str, own: str) -> bool:
    """Whether `url` leads to the listener at `own`, which may be on all addresses of this machine:
    over the same protocol, at the same port, by any name or address that means the same."""
    asked, listens = _spoken(url), _spoken(own)
    if asked is None or asked[:2] != (listens and listens[:2]):
        return False
    assert listens is not None
    wanted, offered = _addresses(asked[2]), _addresses(listens[2])
    if any(ipaddress.ip_address(one).is_unspecified for one in offered):
        return bool(wanted) and all(map(_is_here, wanted))
    return bool(wanted & offered)


def _spoken(url: str) -> tuple[str, int, str] | None:
    """Protocol, port and host; None for what is no such address."""
    try:
        parts = urlsplit(url)
        return _parts(parts)
    except ValueError:
        return None


def _parts(parts: SplitResult) -> tuple[str, int, str] | None:
    known = SCHEMES.get(ALIASES.get(parts.scheme, parts.scheme))
    if known is None or not parts.hostname:
        return None
    protocol, usual = known
    return protocol, parts.port or usual, parts.hostname


def _addresses(host: str) -> set[str]:
    """None for a name that nobody knows."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[4][0]).partition("%")[0] for address in found}


def _is_here(address: str) -> bool:
    """Whether it is one of this machine's own: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
