"""Who is let in over HTTP, and whether what they say can be overheard."""

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.gateway.http.certificate import read_pair, server_context
from services.gateway.http.cors import NO_PAGES, Origins
from services.gateway.http.forwarded import NONE, Proxies
from services.gateway.http.watched_file import Followed
from shared.config import Settings
from shared.errors import Misconfigured
from shared.security import binding
from shared.security.tokens import Tokens, read_tokens


@dataclass(slots=True)
class AccessControl:
    """`tokens` None: anybody may come in. `tls` None: in the clear. `origins`: whose web pages may
    use the gateway. `proxies`: whose word about a request counts. `files`: what is made again when
    it changes; `Followed.refresh` puts it into effect here."""

    tokens: Tokens | None = None
    tls: ssl.SSLContext | None = None
    origins: Origins = NO_PAGES
    proxies: Proxies = NONE
    files: tuple[Followed, ...] = ()

    @staticmethod
    def of(settings: Settings) -> "AccessControl":
        """Raises `Misconfigured` if a setting, or a file that one names, is of no use."""
        access = AccessControl(
            origins=Origins.of(settings.cors_origins), proxies=Proxies.of(settings.trusted_proxies)
        )
        if settings.tokens:
            access._follow_tokens(Path(settings.tokens))
        if settings.http_cert or settings.http_key:
            access._follow_certificate(settings.http_cert, settings.http_key)
        return access

    def refuse_unprotected(self, host: str) -> None:
        """Raises `Misconfigured` if others than this machine could come in without being asked."""
        protection = {
            "DARKROOM_TOKENS (darkroom token NAME FILE)": self.tokens is not None,
            "DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY": self.tls is not None,
        }
        binding.refuse_unprotected("the gateway", host, protection)

    def troubles(self) -> list[str]:
        """What is wrong with files as they are now; what they held before is in effect."""
        return [file.trouble for file in self.files if file.trouble]

    def _follow_tokens(self, path: Path) -> None:
        def use(content: bytes) -> None:
            self.tokens = Tokens.parse(content, path)

        self.files += (Followed("tokens", partial(read_tokens, path), use),)

    def _follow_certificate(self, certificate: str, key: str) -> None:
        """Each connection gets the certificate that is in effect when it begins: the context that
        listens hands it on to the latest one. (Loading a certificate into a context again would
        keep the old one beside it where their keys are of different kinds.)"""
        if not certificate or not key:
            raise Misconfigured("set both DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY, or neither")
        latest: list[ssl.SSLContext] = []

        def use(_: bytes) -> None:
            latest[:] = [server_context(certificate, key)]

        def hand_on(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            connection.context = latest[0]

        self.files += (Followed("certificate", partial(read_pair, certificate, key), use),)
        self.tls = server_context(certificate, key)
        self.tls.sni_callback = hand_on
