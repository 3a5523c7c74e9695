"""Who we are to the server, whom we take it for, and what it does not let us do."""

import logging
import re
import ssl
from typing import Any, Final

from shared.bus.embedded import OLDEST
from shared.errors import Misconfigured, NotPermitted
from shared.security.keys import Credentials

log = logging.getLogger(__name__)

DENIALS: Final = 256
"""Refused subjects that a connection remembers."""

NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""How OpenSSL calls an answer in the clear."""

_DENIED: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.I)
"""How the server says it, on its own and in lower case, some time after what it is about."""


def options(credentials: Credentials | None) -> dict[str, Any]:
    """The client library's options for them. Whoever has an authority to check a server with
    begins with TLS, at every reconnection too: a server that does not is not talked to."""
    if credentials is None:
        return {}
    found: dict[str, Any] = {"nkeys_seed_str": credentials.seed}
    if credentials.ca is not None:
        found["tls"] = ssl.create_default_context(cafile=str(credentials.ca))
        found["tls_handshake_first"] = True
    return found


def trust_anew(tls: ssl.SSLContext | None, credentials: Credentials | None) -> None:
    """Before a connection is made again: an authority that has come into `ca.crt` since counts too,
    as it does where the bus was given a certificate of another one."""
    if tls is None or credentials is None or credentials.ca is None:
        return
    try:
        tls.load_verify_locations(cafile=credentials.ca)
    except (OSError, ssl.SSLError) as error:
        log.warning("%s is of no use (%s); its earlier content still counts", credentials.ca, error)


def refuse_strangers(error: Exception, credentials: Credentials | None) -> None:
    """Raises `Misconfigured` if it is us that the server, or the server that we do not trust:
    trying again would not help."""
    if "authorization violation" in str(error).lower():
        given = "does not know these" if credentials else "asks for"
        raise Misconfigured(
            f"the bus {given} credentials: set DARKROOM_CREDENTIALS to the directory of this "
            "service that darkroom keys made for this bus"
        ) from error
    if isinstance(error, ssl.SSLCertVerificationError):
        raise Misconfigured(
            f"the bus cannot prove who it is ({error.verify_message}): put the certificate of "
            "its authority into ca.crt in DARKROOM_CREDENTIALS"
        ) from error
    if isinstance(error, ssl.SSLError) and error.reason in NO_TLS:
        raise Misconfigured(
            "the bus does not begin with TLS, though there is a ca.crt in DARKROOM_CREDENTIALS: "
            'set `handshake_first: "500ms"` in the tls block of its configuration'
        ) from error


def check_version(major: int, minor: int) -> None:
    """Raises `Misconfigured` if the server is too old."""
    if (major, minor) < OLDEST:
        raise Misconfigured(
            f"the bus is nats-server {major}.{minor}; needed is {OLDEST[0]}.{OLDEST[1]} or newer"
        )


class Denials:
    """What the server refused of late. It says so in lower case, so that is how subjects are
    compared."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], None] = {}
        """(verb, subject in lower case), oldest first."""

    def note(self, text: str) -> str | None:
        """Remember what an error of the server's is about, if it is a refusal. Returns the subject
        that may not be published to, in lower case, if it is that."""
        match = _DENIED.search(text)
        if match is None:
            return None
        verb, subject = "publish" if match[1].lower() == "publish" else "subscribe", match[2]
        self._known[verb, subject.lower()] = None
        while len(self._known) > DENIALS:
            del self._known[next(iter(self._known))]
        return subject.lower() if verb == "publish" else None

    def check(self, verb: str, subject: str) -> None:
        """Raises `NotPermitted` if this was refused."""
        if (verb, subject.lower()) in self._known:
            raise NotPermitted(verb, subject)
