"""Servers that exist only in an event loop: what they would take is known from queueing theory."""

import asyncio
from dataclasses import dataclass, field

from loadgen.outcomes.occupancy import Source
from loadgen.outcomes.outcome import RequestTemplate, Shot
from loadgen.targets.base import HTTP_FIELDS, Answer

DONE = Answer("done", None, 1, 100)


def shot(number: int = 0, at: float = 0.0, template: str = "default") -> Shot:
    return Shot(number, at, "default", template, RequestTemplate())


@dataclass
class Server:
    """`workers` requests at a time, each for `seconds`; the rest wait in the order they came."""

    seconds: float
    workers: int = 1
    answers: dict[int, Answer] = field(default_factory=dict)
    """By shot number; `DONE` otherwise."""
    takes: frozenset[str] = HTTP_FIELDS
    name: str = "a server"
    source: Source | None = None
    seen: list[tuple[int, float]] = field(default_factory=list)
    """Shot numbers and when they arrived."""
    given_up: list[int] = field(default_factory=list)
    """Shots whose sender did not wait for the answer."""
    free: asyncio.Semaphore | None = None

    async def send(self, shot: Shot) -> Answer:
        if self.free is None:
            self.free = asyncio.Semaphore(self.workers)
        self.seen.append((shot.number, asyncio.get_running_loop().time()))
        try:
            async with self.free:
                await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.given_up.append(shot.number)
            raise
        return self.answers.get(shot.number, DONE)
