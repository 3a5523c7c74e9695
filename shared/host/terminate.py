"""Ending a process that cannot go on, and cannot be ended in order."""

import faulthandler
import logging
import os
from typing import Final

ABANDONED: Final = 70
"""Exit status (EX_SOFTWARE)."""

log = logging.getLogger(__name__)


def terminate(reason: str, error: BaseException | None = None) -> None:
    """End this process at once, with the stacks of its threads in the log, for a supervisor to
    start another. Whatever it had is taken up elsewhere, as after any other death."""
    log.critical("this process ends, for another to take its place: %s", reason, exc_info=error)
    faulthandler.dump_traceback()
    logging.shutdown()
    os._exit(ABANDONED)
