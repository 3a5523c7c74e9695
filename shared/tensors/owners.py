"""Whose an arena is: names, owners, the directory they lie in, and which host this is."""

import os
import re
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from shared.errors import Misconfigured

SUFFIX: Final = ".arena"
SERVICE_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,48}")
NAME_PATTERN: Final = re.compile(r"([A-Za-z0-9_-]{1,48})-([0-9]{1,10})-([0-9]{1,20})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that made an arena. Pids are reused, a pid with its start time is not."""

    service: str
    pid: int
    started: int
    """Clock ticks after boot; 0 where the system does not tell."""


@cache
def host_id() -> str:
    """The boot id of this host's kernel: the same in all its containers, another after a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError as error:
        raise Misconfigured(
            f"arenas need Linux with /proc mounted, to tell one boot from the next: {error}"
        ) from error


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks after boot; None if there is no such process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in brackets, which may itself hold spaces and brackets.
    return int(line.rpartition(")")[2].split()[19])


def is_running(owner: Owner) -> bool:
    """Only for owners in this process's pid namespace; elsewhere the file lock has to tell."""
    return start_time(owner.pid) == owner.started


def this_process(service: str) -> Owner:
    """Raises `Misconfigured` if `service` cannot be part of an arena's name."""
    if not SERVICE_PATTERN.fullmatch(service):
        raise Misconfigured(
            f"service: {service!r} cannot name an arena; allowed: {SERVICE_PATTERN.pattern}"
        )
    pid = os.getpid()
    return Owner(service=service, pid=pid, started=start_time(pid) or 0)


def new_name(owner: Owner) -> str:
    """A name for an arena of this owner, unique for all time, and a valid token of a subject."""
    return f"{owner.service}-{owner.pid}-{owner.started}-{secrets.token_hex(4)}"


def owner_of(name: str) -> Owner | None:
    """The owner that an arena's name tells; None if no arena is called so."""
    match = NAME_PATTERN.fullmatch(name)
    if match is None:
        return None
    return Owner(service=match[1], pid=int(match[2]), started=int(match[3]))
