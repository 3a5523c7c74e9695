"""What the load generator itself lacks: such a request says nothing of the server."""

import errno
import os
import socket
from collections.abc import Iterator
from typing import Final

FILES: Final = "file_descriptors"
PORTS: Final = "local_ports"
MEMORY: Final = "local_memory"

REASONS: Final = {
    FILES: "this machine ran out of open files (ulimit -n)",
    PORTS: "this machine ran out of ports to send from",
    MEMORY: "this machine ran out of memory for connections",
}
"""In words, by the name under which such a request is `lost`."""

_OF_ERRNO: Final = {
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EADDRNOTAVAIL: PORTS,
    errno.ENOBUFS: MEMORY,
    errno.ENOMEM: MEMORY,
}


def lack_of(error: BaseException) -> str | None:
    """What `error` says is lacking here; None: it is not about us."""
    for one in _chain(error):
        lack = _OF_ERRNO.get(one.errno or 0) if isinstance(one, OSError) else None
        if lack is not None:
            return lack
    return FILES if _hides(error) and not _files_left() else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _hides(error: BaseException) -> bool:
    """A name that cannot be looked up for want of a file, and several attempts that failed for
    different reasons, are told without an errno."""
    return any(
        isinstance(one, socket.gaierror) or (isinstance(one, OSError) and one.errno is None)
        for one in _chain(error)
    )


def _files_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True
