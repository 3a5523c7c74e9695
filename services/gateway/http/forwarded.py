"""What a proxy before the gateway says about a request: who sent it, and to which address.

`X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` count where a trusted address sent them, and so
does `Forwarded` (RFC 7239) where it is alone. From anybody else they could say anything, and are
not looked at. Pure.
"""

import ipaddress
import itertools
import re
from dataclasses import dataclass
from typing import Final

from multidict import MultiDict, MultiMapping
from yarl import URL

from shared.errors import InvalidRequest, Misconfigured

VARIABLE: Final = "DARKROOM_TRUSTED_PROXIES"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%[\w.~%-]+)?\])(:[0-9]{1,5})?")
_PAIR: Final = re.compile(r'([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))')
_NAMES: Final = {
    "for": "X-Forwarded-For",
    "proto": "X-Forwarded-Proto",
    "host": "X-Forwarded-Host",
}
"""The older names of what `Forwarded` says."""
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The networks whose word counts."""

    networks: tuple[Network, ...] = ()

    @staticmethod
    def of(text: str) -> "Proxies":
        """From a list separated by commas. Raises `Misconfigured` naming what is no network."""
        given = [part.strip() for part in text.split(",") if part.strip()]
        return Proxies(tuple(_network(part) for part in given))

    def client(self, peer: str, headers: MultiMapping[str]) -> str:
        """The address that a request comes from, as far as it is known: that of the connection,
        or what the outermost trusted proxy says."""
        chain = _chain(peer, _spoken(headers))
        known = [str(one) for one in chain[: self._trusted(chain) + 1] if one is not None]
        return known[-1] if known else peer

    def origin(self, peer: str, headers: MultiMapping[str], scheme: str, host: str) -> str:
        """What addresses of this gateway begin with for the client: scheme, host and, if a proxy
        takes one away, the beginning of the path. `scheme` and `host` are the connection's own.
        Raises `InvalidRequest` naming a header that cannot be part of an address."""
        headers = _spoken(headers)
        hops = self._trusted(_chain(peer, headers))
        named, prefix = "Host", ""
        if hops:
            scheme = (_said(headers, "X-Forwarded-Proto", hops) or scheme).lower()
            if (given := _said(headers, "X-Forwarded-Host", hops)) is not None:
                named, host = "X-Forwarded-Host", given
            prefix = _said(headers, "X-Forwarded-Prefix", hops) or ""
        if scheme not in ("http", "https"):
            raise InvalidRequest("X-Forwarded-Proto", scheme, "http or https")
        if _PREFIX.fullmatch(prefix) is None:
            raise InvalidRequest("X-Forwarded-Prefix", prefix, "a path such as /images")
        try:
            found = _HOST.fullmatch(host)
            if found is None or found[3] == ":0":
                raise ValueError(host)
            return f"{URL(f'{scheme}://{host}').origin()}{prefix.rstrip('/')}"
        except ValueError as error:
            raise InvalidRequest(named, host, "a host name, and a port from 1") from error

    def _trusted(self, chain: list[Address | None]) -> int:
        """How many of `chain`, from the connection outwards, are trusted proxies."""
        return len(list(itertools.takewhile(self._trusts, chain)))

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self.networks)


NONE: Final = Proxies()


def _spoken(headers: MultiMapping[str]) -> MultiMapping[str]:
    """With what `Forwarded` says under the older names, unless some of these are there."""
    if "Forwarded" not in headers or any(name in headers for name in _NAMES.values()):
        return headers
    parameters: MultiDict[str] = MultiDict()
    for line in headers.getall("Forwarded"):
        for name, quoted, plain in _PAIR.findall(line):
            if (known := _NAMES.get(name.lower())) is not None:
                parameters.add(known, re.sub(r"\\(.)", r"\1", quoted) or plain)
    return parameters


def _chain(peer: str, headers: MultiMapping[str]) -> list[Address | None]:
    """The addresses that a request went through, the connection's own first; None for what is no
    address."""
    return [_address(peer), *map(_address, reversed(_listed(headers, "X-Forwarded-For")))]


def _said(headers: MultiMapping[str], name: str, hops: int) -> str | None:
    """What the outermost of `hops` trusted proxies wrote into a list to which each of them may have
    added; what stands before it, anybody could have written."""
    entries = _listed(headers, name)
    return entries[-min(hops, len(entries))] if entries else None


def _listed(headers: MultiMapping[str], name: str) -> list[str]:
    parts = [part.strip() for line in headers.getall(name, []) for part in line.split(",")]
    return [part for part in parts if part]


def _address(text: str) -> Address | None:
    """With or without a port. IPv4 that came over an IPv6 socket is IPv4."""
    bracketed = re.fullmatch(r"\[([^\]]+)\](:[0-9]+)?", text)
    if bracketed:
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise Misconfigured(
            f"{VARIABLE}: {text!r} is not allowed ({error}); allowed: addresses and networks "
            "separated by commas, such as 10.0.0.7,192.168.0.0/16,fd00::/8"
        ) from error
