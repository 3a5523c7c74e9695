"""A small message in a bucket that many read and few change: each change is announced on a subject,
and whoever misses that sees it a little later."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from shared.bus.base import Bus
from shared.errors import BusUnavailable, DarkroomError, RevisionConflict
from shared.messages import decode, encode

T = TypeVar("T")
log = logging.getLogger(__name__)

FOLLOW_SECONDS: Final = 5.0
"""After which a change is seen whose announcement was lost."""


@dataclass(frozen=True, slots=True)
class Document(Generic[T]):
    """The message of type `kind` under `key` of `bucket`, whose changes are announced on
    `announced`."""

    bus: Bus
    bucket: str
    key: str
    kind: type[T]
    announced: str

    async def read(self) -> T | None:
        """None: there is none. Raises `InvalidRequest` if it is of another kind."""
        entry = await self.bus.get(self.bucket, self.key)
        return None if entry is None else decode(entry.value, self.kind)

    async def change(self, change: Callable[[T | None], T]) -> T:
        """What it is after `change`, which is asked again if somebody else was faster. It may
        raise, and then nothing is changed."""
        while True:
            entry = await self.bus.get(self.bucket, self.key)
            before = None if entry is None else decode(entry.value, self.kind)
            after = change(before)
            if after == before:
                return after
            with suppress(RevisionConflict):
                if entry is None:
                    await self.bus.create(self.bucket, self.key, encode(after))
                else:
                    await self.bus.update(self.bucket, self.key, encode(after), entry.revision)
                with suppress(BusUnavailable):  # who follows it looks by itself
                    await self.bus.publish(self.announced, b"")
                return after


async def follow(bus: Bus, announced: str, look: Callable[[], Awaitable[None]]) -> None:
    """Call `look` whenever something is announced on that subject, and every `FOLLOW_SECONDS`, for
    as long as this runs."""
    changed = asyncio.Event()
    async with bus.subscribe(announced) as told, asyncio.TaskGroup() as group:

        async def listen() -> None:
            async for _ in told:
                changed.set()

        group.create_task(listen())
        while True:
            changed.clear()
            try:
                await look()
            except DarkroomError as error:
                log.warning("what %s announces cannot be read: %s", announced, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await changed.wait()
