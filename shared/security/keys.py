"""Key pairs (Ed25519, as NATS writes them) by which each service proves itself to the bus.

What a process needs lies in one directory: `nkey`, its seed, and `ca.crt` if the bus speaks TLS. A
client's also holds a `token` for HTTP.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import nkeys

from shared.errors import Misconfigured
from shared.security.private_files import read_private

SEED_FILE: Final = "nkey"
CA_FILE: Final = "ca.crt"
TOKEN_FILE: Final = "token"
"""For the gateway, in a client's directory."""
VARIABLE: Final = "DARKROOM_CREDENTIALS"


def new_seed() -> str:
    """A new key pair's secret half; begins with SU."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def public_key(seed: str) -> str:
    """The half that the bus knows; begins with U. Raises `Misconfigured` if `seed` is none."""
    try:
        found: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    except Exception as error:  # the library lets through what its decoders raise
        raise Misconfigured(f"an nkey is not a seed (SU…): {type(error).__name__}") from error
    return found.decode()


def inbox_of(public: str) -> str:
    """Where answers for the holder of this key go; nobody else may listen there."""
    return f"_INBOX.{public}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a process is to the bus, and whom it takes for the bus."""

    seed: str = field(repr=False)
    public: str
    ca: Path | None

    @property
    def anonymous(self) -> bool:
        return not self.seed

    @staticmethod
    def of_directory(directory: Path) -> "Credentials":
        """Raises `Misconfigured` if the seed is missing, damaged, or readable by others."""
        content = read_private(directory / SEED_FILE, "the nkey")
        seed = content.decode(errors="replace").strip()
        ca = directory / CA_FILE
        return Credentials(seed, public_key(seed), ca if ca.exists() else None)

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> "Credentials | None":
        """Those in the directory that DARKROOM_CREDENTIALS names; None if it names none."""
        given = environ.get(VARIABLE, "")
        return Credentials.of_directory(Path(given)) if given else None


ANONYMOUS: Final = Credentials("", "", None)
"""Nobody in particular, whatever the environment says: for a bus that does not ask."""
