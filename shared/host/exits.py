"""How a service ends that cannot go on: in one sentence, with a status that says whether another
start may help."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from shared.errors import DarkroomError, Misconfigured

MISCONFIGURED: Final = os.EX_CONFIG
"""Exit status: the same start again will end in the same way."""
MARK: Final = "darkroom: "
"""Begins the sentence, on a line of its own."""


def leave() -> NoReturn:
    """End this process, which has nothing left to do, with status 0."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def exit_in_words() -> Iterator[None]:
    """An error of ours that leaves the block ends the process with a sentence on standard error.
    Any other leaves as it is, with its traceback."""
    try:
        yield
    except (DarkroomError, ExceptionGroup) as raised:
        error = first_cause(raised)
        if not isinstance(error, DarkroomError):
            raise
        print(MARK + " ".join(error.message.split()), file=sys.stderr, flush=True)
        sys.exit(MISCONFIGURED if isinstance(error, Misconfigured) else 1)


def first_cause(error: Exception) -> Exception:
    """The first one in what task groups raised."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
