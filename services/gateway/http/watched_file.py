"""Files that take effect when they change, without a restart: tokens, and the certificate."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from shared.errors import Misconfigured

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files."""


class Followed:
    """Something made of files, and made again when their content changes.

    `read` gives the content, `use` puts it into effect; both raise `Misconfigured` for what is of
    no use, and then what was in effect stays so. The content is compared, and not the files' times:
    these are too coarse to tell two writes in a row apart. What is of no use from the beginning
    raises."""

    def __init__(self, what: str, read: Callable[[], bytes], use: Callable[[bytes], None]) -> None:
        self._what = what
        self._read = read
        self._use = use
        content = read()
        use(content)
        self._content: bytes | None = content
        self.trouble = ""
        """What is wrong with the files as they are now; empty: they are in effect."""

    def __repr__(self) -> str:
        return f"<Followed {self._what}: {self.trouble or 'in effect'}>"

    def refresh(self) -> None:
        """Never raises: what is wrong is logged once, and is `trouble` until it is put right."""
        content: bytes | None = None
        try:
            content = self._read()
            if content == self._content:
                return
            self._use(content)
        except Misconfigured as error:
            self._fail(error.message)
        else:
            self.trouble = ""
            log.info("%s: the new content is in effect", self._what)
        self._content = content

    def _fail(self, reason: str) -> None:
        message = f"{reason}; the earlier content stays in effect"
        if message != self.trouble:
            log.error("%s: %s", self._what, message)
        self.trouble = message


async def keep_following(files: Iterable[Followed], every: float = LOOK_SECONDS) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(every)
        for one in files:
            await asyncio.to_thread(one.refresh)  # a disk that hangs holds up no request
