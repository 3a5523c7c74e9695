"""Requests of one connection that wait for their answers."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable

from shared.bus.base import Message
from shared.errors import BusUnavailable, DarkroomError, NotPermitted


class PendingRequest:
    """Answers that are awaited; `done` holds whether `last` was seen among them."""

    __slots__ = ("answers", "done", "last", "subject")

    def __init__(self, subject: str, last: Callable[[Message], bool]) -> None:
        self.subject = subject
        self.last = last
        self.answers: list[Message] = []
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def finish(self, complete: bool) -> None:
        if not self.done.done():
            self.done.set_result(complete)

    def fail(self, error: DarkroomError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class PendingRequests:
    """Answers come on subjects below `inbox`, one for each request."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self._pending: dict[str, PendingRequest] = {}
        self._tokens = itertools.count()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def subjects(self) -> str:
        """All that answers can come on."""
        return f"{self._inbox}.a.*"

    @contextlib.asynccontextmanager
    async def waiting(
        self, subject: str, timeout: float, last: Callable[[Message], bool]
    ) -> AsyncIterator[tuple[PendingRequest, str]]:
        """A request that is given up after `timeout`, and the subject its answers go to."""
        request, token = PendingRequest(subject, last), str(next(self._tokens))
        self._pending[token] = request
        timer = asyncio.get_running_loop().call_later(timeout, request.finish, False)
        try:
            yield request, f"{self._inbox}.a.{token}"
        finally:
            timer.cancel()
            del self._pending[token]

    def answered(self, message: Message) -> None:
        request = self._pending.get(message.subject.rsplit(".", 1)[1])
        if request is not None:
            request.answers.append(message)
            if request.last(message):
                request.finish(True)

    def denied(self, subject: str | None) -> None:
        """The server refused to take a message on `subject` (in lower case): no answer will
        come."""
        for request in self._pending.values():
            if subject == request.subject.lower():
                request.fail(NotPermitted("publish", request.subject))

    def lost(self) -> None:
        """The connection broke: nobody can answer any more."""
        error = BusUnavailable("connection", "it was lost while waiting for an answer")
        for request in self._pending.values():
            request.fail(error)
