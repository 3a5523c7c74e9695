"""The buffer between the bus and whoever iterates over a subscription."""

import asyncio
import logging
from collections import deque
from typing import Final

from shared.bus.base import Message

log = logging.getLogger(__name__)

MAX_MESSAGES: Final = 8192
MAX_BYTES: Final = 64 * 1024 * 1024


class Inbox:
    """Messages received and not yet read, in order, for one reader.

    Beyond 8192 messages or 64 MiB the newest is dropped and counted: core messages are lossy, and a
    reader that fell behind must not grow without bound. Iteration ends when the inbox is closed and
    what it held has been read."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.dropped = 0
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._closed = False
        self._reader: asyncio.Future[None] | None = None

    def offer(self, message: Message) -> None:
        """Take `message` in, or drop it at the bound."""
        size = len(message.data)
        if self._closed:
            return
        if len(self._messages) >= MAX_MESSAGES or self._bytes + size > MAX_BYTES:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("%r is full and drops messages", self)
            return
        self._messages.append(message)
        self._bytes += size
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def __aiter__(self) -> "Inbox":
        return self

    async def __anext__(self) -> Message:
        while not self._messages:
            if self._closed:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        message = self._messages.popleft()
        self._bytes -= len(message.data)
        return message

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __repr__(self) -> str:
        return (
            f"<Inbox {self.subject}: {len(self._messages)}/{MAX_MESSAGES} messages, "
            f"{self._bytes}/{MAX_BYTES} bytes, {self.dropped} dropped>"
        )
