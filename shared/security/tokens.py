"""Bearer tokens: who may use the HTTP API.

The gateway keeps a file of hashes, a line `name: sha256-of-token` for each, and after it
`interactive` for those whose jobs may go before all others, and `operator` for those that may
change what is served. Tokens are random and long, so a plain hash is enough: there is nothing to
guess.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from shared.errors import Forbidden, InvalidRequest, Misconfigured, Unauthorized
from shared.security.private_files import read_private, write_private

PREFIX: Final = "dr-"
_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_LINE: Final = re.compile(r"([A-Za-z0-9_.@-]{1,64})\s*:\s*([0-9a-f]{64})((?:\s+[a-z]+)*)")
INTERACTIVE: Final = "interactive"
OPERATOR: Final = "operator"
RIGHTS: Final = (INTERACTIVE, OPERATOR)


class Tokens:
    """The tokens that are accepted, by their holders' names."""

    def __init__(
        self,
        hashes: Mapping[str, str],
        interactive: Collection[str] = (),
        operators: Collection[str] = (),
    ) -> None:
        """`interactive`: the holders that may ask for this service class. `operators`: those that
        may change what is served."""
        self._hashes = dict(hashes)
        self._interactive = frozenset(interactive)
        self._operators = frozenset(operators)

    def __repr__(self) -> str:
        return f"<Tokens of {', '.join(self._hashes)}>"

    @staticmethod
    def load(path: Path) -> "Tokens":
        """Raises `Misconfigured` if the file is not ours alone, or a line of it is wrong."""
        return Tokens.parse(read_tokens(path), path)

    @staticmethod
    def parse(content: bytes, path: Path) -> "Tokens":
        """`path`: where `content` is from. Raises `Misconfigured` if a line of it is wrong."""
        hashes: dict[str, str] = {}
        holders: dict[str, set[str]] = {right: set() for right in RIGHTS}
        text = content.decode(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            match = _LINE.fullmatch(stripped)
            rights = match[3].split() if match else []
            if match is None or match[1] in hashes or not set(rights) <= set(RIGHTS):
                raise Misconfigured(
                    f"{path}:{number}: allowed is `name: sha256 of the token in hexadecimal`, "
                    f"with or without {' and '.join(f'`{right}`' for right in RIGHTS)} after it, "
                    "each name once; make one with "
                    "darkroom token NAME FILE"
                )
            hashes[match[1]] = match[2]
            for right in rights:
                holders[right].add(match[1])
        if not hashes:
            raise Misconfigured(f"{path} holds no token; make one with darkroom token NAME FILE")
        return Tokens(hashes, holders[INTERACTIVE], holders[OPERATOR])

    def check_class(self, holder: str, service_class: str) -> None:
        """Raises `Forbidden` if the jobs of `holder` may not be of this class."""
        if service_class == INTERACTIVE and holder not in self._interactive:
            raise Forbidden(
                f"service_class: the API key {holder!r} may not ask for {INTERACTIVE!r}; allowed: "
                "'standard', 'batch'. Keys that may have it after their hash "
                "(darkroom token --interactive NAME FILE)",
                field="service_class",
            )

    def check_operator(self, holder: str) -> None:
        """Raises `Forbidden` if `holder` may not change what is served."""
        if holder not in self._operators:
            raise Forbidden(
                f"models: the API key {holder!r} may not change what is served; allowed: keys that "
                f"have {OPERATOR!r} after their hash (darkroom token --operator NAME FILE)",
                field="models",
            )

    def holder(self, authorization: str) -> str:
        """Whose token an `Authorization` header carries. Raises `Unauthorized`. How long this
        takes tells nothing about the tokens: every hash is compared, in constant time."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("no API key was given; send Authorization: Bearer TOKEN")
        given = _hash(token.strip())
        found = ""
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, given):
                found = name
        if not found:
            raise Unauthorized("the API key that was given is not known")
        return found


def read_tokens(path: Path) -> bytes:
    """Raises `Misconfigured` if the file is not ours alone."""
    return read_private(path, "DARKROOM_TOKENS")


def add_token(path: Path, name: str, interactive: bool = False, operator: bool = False) -> str:
    """Write the hash of a new token into the file at `path` (made if absent, mode 0600), in place
    of that name's earlier one, and return the token, which is kept nowhere else."""
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest("name", name, f"text matching {_NAME.pattern}")
    lines: list[str] = []
    if path.exists():
        text = read_tokens(path).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.partition(":")[0].strip() != name]
    token = PREFIX + secrets.token_urlsafe(32)
    rights = [right for right, has in zip(RIGHTS, (interactive, operator), strict=True) if has]
    line = " ".join([f"{name}: {_hash(token)}", *rights])
    write_private(path, "\n".join([*lines, line, ""]).encode())
    return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
