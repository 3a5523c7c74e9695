"""Who is let in over HTTP, and whether what they say can be overheard."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from services.gateway.tokens import Tokens
from shared import binding
from shared.config import Settings
from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Door:
    """`tokens` None: anybody may come in. `tls` None: in the clear."""

    tokens: Tokens | None = None
    tls: ssl.SSLContext | None = None

    @staticmethod
    def of(settings: Settings) -> "Door":
        """Raises `Misconfigured` if a file that the settings name is of no use."""
        tokens = Tokens.load(Path(settings.tokens)) if settings.tokens else None
        return Door(tokens, _tls(settings.http_cert, settings.http_key))

    def refuse_unprotected(self, host: str) -> None:
        """Raises `Misconfigured` if others than this machine could come in without being asked."""
        protection = {
            "DARKROOM_TOKENS (darkroom token NAME FILE)": self.tokens is not None,
            "DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY": self.tls is not None,
        }
        binding.refuse_unprotected("the gateway", host, protection)


def _tls(certificate: str, key: str) -> ssl.SSLContext | None:
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise Misconfigured("set both DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"DARKROOM_HTTP_CERT={certificate!r} and DARKROOM_HTTP_KEY={key!r} are no certificate "
            f"and its key: {error}"
        ) from error
    return context
