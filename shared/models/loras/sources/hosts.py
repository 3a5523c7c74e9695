"""Which hosts LoRAs may be fetched from. None, unless the operator names them.

No torch here: planners and gateways check addresses before anybody fetches.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from yarl import URL

from shared.errors import Misconfigured

MAX_URL: Final = 2048
"""Characters."""
_URL: Final = re.compile(r"https?://[!-~]+")
"""What is sent as it was given: no spaces, and nothing but ASCII."""
_ENTRY: Final = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<any>\*\.)?(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_PORTS: Final = {"http": 80, "https": 443}


class Host(msgspec.Struct, frozen=True):
    """One entry of DARKROOM_LORA_HOSTS. `below`: the hosts of the domain `name`, not itself."""

    scheme: str
    name: str
    port: int
    below: bool = False

    def allows(self, url: URL) -> bool:
        if (url.scheme, url.port) != (self.scheme, self.port):
            return False
        host = (url.host or "").lower()
        return host.endswith(f".{self.name}") if self.below else host == self.name


class Hosts(msgspec.Struct, frozen=True):
    """All of them. `hub`: the address of the model hub that hub ids are about."""

    entries: tuple[Host, ...] = ()
    hub: str = "https://huggingface.co"

    @staticmethod
    def parse(entries: Sequence[str], hub: str) -> "Hosts":
        """`entries`: `host`, `host:port` or `*.domain`, for https; plain http only where it is
        written out, as in `http://10.0.0.7:8000`. Raises `Misconfigured`."""
        if parse_url(hub) is None:
            raise Misconfigured(f"DARKROOM_LORA_HUB={hub!r}: not an http or https address")
        return Hosts(tuple(_entry(text) for text in entries), hub.rstrip("/"))

    def allow(self, url: URL) -> bool:
        """Whether anything may be fetched from `url`."""
        return any(entry.allows(url) for entry in self.entries)

    @property
    def allow_hub(self) -> bool:
        """Whether hub ids may be named."""
        return self.allow(URL(self.hub, encoded=True))

    def __str__(self) -> str:
        return ", ".join(_shown(entry) for entry in self.entries)


def parse_url(text: str) -> URL | None:
    """`text` as an address that can be fetched as it stands; None if it is none: too long, another
    scheme, no host, or with a user's name or a fragment in it."""
    if len(text) > MAX_URL or not _URL.fullmatch(text):
        return None
    try:
        url = URL(text, encoded=True)
        usable = url.host and url.port and url.user is None and url.password is None
    except ValueError:
        return None
    return url if usable and not url.fragment else None


def _entry(text: str) -> Host:
    match = _ENTRY.fullmatch(text.lower())
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise Misconfigured(
            f"DARKROOM_LORA_HOSTS: {text!r} is none of host, host:port, *.domain, http://host"
        )
    scheme = match["scheme"] or "https"
    return Host(scheme, match["host"], int(match["port"] or _PORTS[scheme]), bool(match["any"]))


def _shown(entry: Host) -> str:
    port = "" if entry.port == _PORTS[entry.scheme] else f":{entry.port}"
    return f"{entry.scheme}://{'*.' if entry.below else ''}{entry.name}{port}"
