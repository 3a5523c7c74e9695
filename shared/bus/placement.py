"""What processes shall hold: read by model services, written by operators and by placement."""

from collections.abc import Callable, Sequence

from shared import subjects
from shared.bus.base import Bus
from shared.bus.document import Document
from shared.messages.components import Placement, WantedProcesses


def placement(bus: Bus, whose: str) -> Document[Placement]:
    """Of the process, or of all processes of the service, of that name."""
    return Document(bus, subjects.PLACEMENT, whose, Placement, subjects.PLACED)


def wanted_of(bus: Bus, fleet: str) -> Document[WantedProcesses]:
    """How many processes the fleet of that name shall have."""
    key = f"wanted-{fleet}"
    return Document(bus, subjects.PLACEMENT, key, WantedProcesses, subjects.PLACED)


async def placed(bus: Bus, process: str, service: str) -> Placement:
    """What that process of that service shall hold: as is said of itself, else of its service, and
    without what is away from either."""
    own, common = [await placement(bus, one).read() or Placement() for one in (process, service)]
    held = common.held if own.held is None else own.held
    return Placement(
        held=held,
        away=(*common.away, *own.away),
        awaited=(*common.awaited, *own.awaited),
    )


def without(names: Sequence[str]) -> Callable[[Placement | None], Placement]:
    """A change: `names` are held no more."""

    def change(before: Placement | None) -> Placement:
        before = before or Placement()
        away = tuple(dict.fromkeys((*before.away, *names)))
        return Placement(held=before.held, away=away, awaited=_but(before.awaited, names))

    return change


def within(names: Sequence[str], awaited: bool = False) -> Callable[[Placement | None], Placement]:
    """A change: `names` are held again; `awaited`: jobs wait for them."""

    def change(before: Placement | None) -> Placement:
        before = before or Placement()
        held = before.held
        if held is not None:
            held = tuple(dict.fromkeys((*held, *names)))
        others = _but(before.awaited, names)
        return Placement(
            held=held,
            away=_but(before.away, names),
            awaited=(*others, *names) if awaited else others,
        )

    return change


def _but(each: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in each if one not in names)
