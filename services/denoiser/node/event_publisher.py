"""Progress and previews on their way out: bounded, lossy, never in the way of a step."""

import asyncio
import logging
from typing import Final

from shared.bus.base import Bus
from shared.errors import DarkroomError
from shared.messages import encode

log = logging.getLogger(__name__)

BOUND: Final = 4096
"""Messages that may wait; further ones are dropped and counted."""


class EventPublisher:
    """Publishes what is posted, in order. `run` must be running."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: asyncio.Queue[tuple[str, object]] = asyncio.Queue(BOUND)
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<EventPublisher {self._queue.qsize()}/{BOUND} waiting, {self.dropped} dropped>"

    def post(self, subject: str, message: object) -> None:
        try:
            self._queue.put_nowait((subject, message))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        while True:
            subject, message = await self._queue.get()
            try:
                await self._bus.publish(subject, encode(message))
            except DarkroomError as error:
                self.dropped += 1
                log.info("an event was dropped: %s", error)
