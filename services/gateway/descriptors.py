"""Room for as many open connections as the gateway's bound allows requests."""

import logging
import resource
from typing import Final

from services.gateway.core import MAX_REQUESTS

log = logging.getLogger(__name__)

NEEDED: Final = MAX_REQUESTS + 512
"""Open files: a connection for each request that waits, others that are refused or idle, and the
process's own."""


def make_room(needed: int = NEEDED) -> None:
    """Raise this process's soft limit on open files to `needed`, or as far as the hard one allows:
    many systems start processes with 1,024, where the kernel would refuse connections before the
    gateway could refuse requests by name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = enough(soft, hard, needed)
    if wanted != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted != resource.RLIM_INFINITY and wanted < needed:
        log.warning("open files are limited to %d, %d are needed; see ulimit -Hn", wanted, needed)


def enough(soft: int, hard: int, needed: int) -> int:
    """The soft limit to set. Pure."""
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    return needed if hard == resource.RLIM_INFINITY else min(needed, hard)
