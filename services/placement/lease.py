"""Which of several placement services decides: the one that renewed the lease last.

The lease is an entry of a bucket. Its holder writes it anew several times a second; whoever sees
it unchanged for `LEASE_SECONDS`, by its own clock, takes it over. Writing is compare-and-set, so of
several who try, one succeeds, and one who was stopped, or cut off from the bus, takes itself to
hold the lease no longer than others do.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

import msgspec

from shared import subjects
from shared.bus.base import Bus
from shared.errors import InvalidRequest, RevisionConflict
from shared.messages import decode, encode

LEASE_SECONDS: Final = 2.0
"""After which a lease that nobody renews is over."""
RENEW_SECONDS: Final = 0.5
"""Between two renewals, and two looks at somebody else's: together less than three seconds pass
until a lease is taken over."""
KEY: Final = "lease"


class PlacementLease(msgspec.Struct, frozen=True, kw_only=True):
    """`term`: one more whenever somebody else takes it."""

    holder: str
    term: int = 1
    renewed: int = 0


@dataclass(slots=True)
class Seen:
    """A revision of the lease, and when it was first seen."""

    revision: int
    at: float


def _read(data: bytes) -> PlacementLease:
    """What cannot be read is a lease that nobody renews."""
    try:
        return decode(data, PlacementLease)
    except InvalidRequest:
        return PlacementLease(holder="", term=0)


class LeaseHolder:
    """Of the process `name`."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus, self._name = bus, name
        self._seen: Seen | None = None
        self._until = -inf

    def __repr__(self) -> str:
        return f"<LeaseHolder {self._name} until {self._until:.1f}>"

    def holds(self, now: float) -> bool:
        """Whether nobody else can have taken it: it was renewed `LEASE_SECONDS` ago at most. `now`:
        as for `renew`."""
        return now < self._until

    async def renew(self, now: float) -> bool:
        """Renew the lease, or take it if it is free or over; whether it is held. `now`: of a clock
        that never goes back. Raises `BusUnavailable`; what was renewed before holds on."""
        renewed = await self._renew(now)
        self._until = now + LEASE_SECONDS if renewed else -inf
        return renewed

    async def _renew(self, now: float) -> bool:
        entry = await self._bus.get(subjects.PLACEMENT, KEY)
        if entry is None:
            return await self._write(PlacementLease(holder=self._name), None, now)
        lease = _read(entry.value)
        if lease.holder == self._name:
            renewed = msgspec.structs.replace(lease, renewed=lease.renewed + 1)
            return await self._write(renewed, entry.revision, now)
        if self._seen is None or self._seen.revision != entry.revision:
            self._seen = Seen(entry.revision, now)
        if now - self._seen.at < LEASE_SECONDS:
            return False
        taken = PlacementLease(holder=self._name, term=lease.term + 1)
        return await self._write(taken, entry.revision, now)

    async def _write(self, lease: PlacementLease, revision: int | None, now: float) -> bool:
        try:
            if revision is None:
                await self._bus.create(subjects.PLACEMENT, KEY, encode(lease))
            else:
                await self._bus.update(subjects.PLACEMENT, KEY, encode(lease), revision)
        except RevisionConflict:
            return False  # somebody else was faster
        self._seen = None
        return True
