"""A certificate and its key, as files."""

import ssl
from pathlib import Path
from typing import Final

from shared.errors import Misconfigured

OF_HTTP: Final = ("DARKROOM_HTTP_CERT", "DARKROOM_HTTP_KEY")
"""What names the gateway's; errors say it."""


def read_pair(certificate: str, key: str, named: tuple[str, str] = OF_HTTP) -> bytes:
    """Raises `Misconfigured` for files that cannot be read."""
    try:
        return Path(certificate).read_bytes() + b"\0" + Path(key).read_bytes()
    except OSError as error:
        raise _no_pair(certificate, key, named, error) from error


def server_context(certificate: str, key: str, named: tuple[str, str] = OF_HTTP) -> ssl.SSLContext:
    """For a server that shows them. Raises `Misconfigured` if they do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise _no_pair(certificate, key, named, error) from error
    return context


def _no_password() -> str:
    """OpenSSL would ask for one on the terminal."""
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


def _no_pair(certificate: str, key: str, named: tuple[str, str], error: Exception) -> Misconfigured:
    return Misconfigured(
        f"{named[0]}={certificate!r} and {named[1]}={key!r} are no certificate and its key: {error}"
    )
