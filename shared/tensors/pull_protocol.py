"""What is said when one host pulls a tensor from another. Pure; `tcp.py` says it.

    greeting  magic (8), whether proofs are wanted (u8), nonce (32)
    request   length (u32), nonce (32), proof (32), then the handle as MessagePack
    answer    status (u8), length (u64), proof (32), then the tensor's bytes (status 0)
              or why it is lost (1)

One request per connection. Little-endian. A proof is a keyed BLAKE2b over both nonces and all that
it answers for, so that each side knows that the other has the secret, that nothing was changed on
the way, and that nothing was recorded earlier. Nothing is encrypted. Without a secret proofs are
zeros.
"""

import hashlib
import hmac
import struct
from pathlib import Path
from typing import Final

from shared.config import Settings
from shared.errors import Misconfigured
from shared.security.private_files import read_private

MAGIC: Final = b"DRPULL2\0"
NONCE: Final = 32
NO_PROOF: Final = bytes(32)
SHORTEST_SECRET: Final = 32
"""Bytes; `openssl rand -hex 32` writes twice as many."""

GREETING: Final = struct.Struct("<8s?32s")
REQUEST: Final = struct.Struct("<I32s32s")
ANSWER: Final = struct.Struct("<BQ32s")
FOUND: Final = 0
LOST: Final = 1


class Secret:
    """What all hosts of one fleet know. Made from any bytes; never shown."""

    def __init__(self, content: bytes) -> None:
        self._key = hashlib.sha256(content).digest()

    def __repr__(self) -> str:
        return "<Secret>"

    def request(self, served: bytes, asked: bytes, handle: bytes | bytearray) -> bytes:
        """The proof of who asks. `served` and `asked`: the two sides' nonces."""
        return self._proof(b"request", served, asked, handle)

    def answer(self, served: bytes, asked: bytes, status: int, data: bytes | bytearray) -> bytes:
        """The proof of who answers."""
        return self._proof(b"answer", served, asked, bytes([status]), data)

    def _proof(self, *parts: bytes | bytearray) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32, person=MAGIC)
        for part in parts:  # each part has its length before it: no two lists read the same
            digest.update(struct.pack("<Q", len(part)))
            digest.update(part)
        return digest.digest()


def is_proof(given: bytes, expected: bytes) -> bool:
    """In constant time."""
    return hmac.compare_digest(given, expected)


def secret_in_force() -> Secret | None:
    """The one in the file that DARKROOM_TENSOR_SECRET names; None if it names none. Raises
    `Misconfigured` if the file is not ours alone, or too short to be one."""
    path = Settings.from_env().tensor_secret
    if not path:
        return None
    content = read_private(Path(path), "DARKROOM_TENSOR_SECRET").strip()
    if len(content) < SHORTEST_SECRET:
        raise Misconfigured(
            f"DARKROOM_TENSOR_SECRET: {path} holds {len(content)} bytes; at least "
            f"{SHORTEST_SECRET} random ones are needed (openssl rand -hex 32)"
        )
    return Secret(content)
