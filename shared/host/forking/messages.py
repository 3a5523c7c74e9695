"""What is said between a fork server and whoever asks it for processes, over a socket that keeps
the bounds of messages (SOCK_SEQPACKET)."""

import os
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

SERVER: Final = "shared.host.forking.server"
"""The module that forks."""
TITLE_BYTES: Final = 200
"""Room for the command lines of what is forked (`title.py`)."""
LONGEST: Final = 1 << 20
"""Bytes of a message. The kernel may allow less; then nothing is forked."""


def server_command(channel: int) -> tuple[str, ...]:
    """Starts a server that listens at descriptor `channel`."""
    return (sys.executable, "-m", SERVER, str(channel), " " * TITLE_BYTES)


class ForkRequest(msgspec.Struct, frozen=True, array_like=True):
    """Asks for a process that is as if `python -m MODULE ARGUMENTS` had been started. The file for
    its output comes beside it (SCM_RIGHTS)."""

    command: tuple[str, ...]
    """The module and its arguments."""
    environment: tuple[bytes, ...]
    """`NAME=value`, all there is."""
    parent: int
    """The process that asks: it adopts the new one, which dies with it."""


class ForkReply(msgspec.Struct, frozen=True, array_like=True):
    """`pid` of the process, which begins once the reply has been sent; or why there is none."""

    pid: int = 0
    refusal: str = ""


def packed(environment: Mapping[str, str]) -> tuple[bytes, ...]:
    return tuple(os.fsencode(f"{name}={value}") for name, value in environment.items())


def unpacked(entries: tuple[bytes, ...]) -> dict[bytes, bytes]:
    found = {}
    for entry in entries:
        name, _, value = entry.partition(b"=")
        found[name] = value
    return found
