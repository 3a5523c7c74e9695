"""Where a process may listen: on loopback freely, elsewhere only with TLS and credentials."""

import ipaddress
import socket
from collections.abc import Mapping

from shared.errors import Misconfigured


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`. A name is loopback if all its
    addresses are; one that has none is not, nor is the empty name, which means every address."""
    if not host:
        return False
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        pass
    try:
        found = {str(address[4][0]) for address in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(one.split("%")[0]).is_loopback for one in found)


def refuse_unprotected(what: str, host: str, protection: Mapping[str, bool]) -> None:
    """Raises `Misconfigured` if `what` would listen on `host`, which others can reach, without all
    of `protection`: what to set, and whether it is."""
    missing = [setting for setting, given in protection.items() if not given]
    if missing and not is_loopback(host):
        raise Misconfigured(
            f"{what} would listen on {host!r}, which is not loopback, without TLS and credentials: "
            f"set {' and '.join(missing)}, or listen on 127.0.0.1"
        )
