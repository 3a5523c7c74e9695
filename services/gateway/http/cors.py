"""Which web pages may use the gateway from a browser: cross-origin resource sharing (CORS).

A browser asks first (a preflight: OPTIONS, without a token), and hands an answer to a page only if
its headers allow the page's origin. Nothing here depends on cookies, so credentials are never
allowed. Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.errors import Misconfigured

VARIABLE: Final = "DARKROOM_CORS_ORIGINS"
METHODS: Final = "GET, HEAD, POST, DELETE"
MAX_AGE_SECONDS: Final = 600
"""How long a browser may go by a preflight's answer."""

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<below>\*\.)?"
    r"(?P<host>[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Origins:
    """`exact`: origins as browsers write them. `below`: what comes before and after the names of
    hosts below a domain. `anybody`: any page may."""

    exact: frozenset[str] = frozenset()
    below: tuple[tuple[str, str], ...] = ()
    anybody: bool = False

    @staticmethod
    def of(text: str) -> "Origins":
        """From a list separated by commas. Raises `Misconfigured` naming what is no origin."""
        exact: set[str] = set()
        below: list[tuple[str, str]] = []
        given = [part.strip() for part in text.split(",") if part.strip()]
        for part in given:
            if part == "*":
                continue
            scheme, wildcard, rest = _parts(part)
            if wildcard:
                below.append((f"{scheme}://", f".{rest}"))
            else:
                exact.add(f"{scheme}://{rest}")
        return Origins(frozenset(exact), tuple(below), "*" in given)

    def __bool__(self) -> bool:
        return bool(self.exact or self.below or self.anybody)

    def allows(self, origin: str) -> bool:
        return (
            self.anybody
            or origin in self.exact
            or any(
                origin.startswith(before)
                and origin.endswith(after)
                and len(origin) > len(before) + len(after)
                for before, after in self.below
            )
        )

    def headers(self, origin: str | None) -> dict[str, str]:
        """What an answer to a page of `origin` says, None being no page's. `Vary` keeps caches
        from giving one origin's answer to another."""
        if self.anybody:
            return {} if origin is None else _allowing("*")
        if not self:
            return {}
        vary = {"Vary": "Origin"}
        return vary if origin is None or not self.allows(origin) else vary | _allowing(origin)


NO_PAGES: Final = Origins()


def preflight(headers: Mapping[str, str]) -> dict[str, str]:
    """The answer to a preflight with these headers, of an origin that is allowed. A page may send
    whatever headers it likes: clients add their own."""
    answer = {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
    }
    if (names := headers.get("Access-Control-Request-Headers")) is not None:
        answer["Access-Control-Allow-Headers"] = names
    if headers.get("Access-Control-Request-Private-Network") == "true":
        answer["Access-Control-Allow-Private-Network"] = "true"
    return answer


def _allowing(origin: str) -> dict[str, str]:
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "*"}


def _parts(given: str) -> tuple[str, bool, str]:
    """The scheme, whether all hosts below are meant, and the host with a port that is not the
    scheme's own. Raises `Misconfigured`."""
    found = _ORIGIN.fullmatch(given.lower())
    if found is None or not 0 < int(found["port"] or 1) < 65536:
        raise Misconfigured(
            f"{VARIABLE}: {given!r} is not allowed; allowed: origins separated by commas, each "
            "SCHEME://HOST or SCHEME://HOST:PORT without a path, such as https://studio.example, "
            "SCHEME://*.DOMAIN for all hosts below a domain, or * for any page"
        )
    scheme, port = found["scheme"], found["port"]
    shown = f":{int(port)}" if port and str(int(port)) != _DEFAULT_PORTS.get(scheme) else ""
    return scheme, found["below"] is not None, found["host"] + shown
