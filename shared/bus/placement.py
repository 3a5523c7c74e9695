"""What processes shall hold: read by model services, written by operators and by placement."""

from collections.abc import Callable, Sequence

from shared import subjects
from shared.bus.base import Bus
from shared.bus.document import Document
from shared.messages.components import Placement


def placement(bus: Bus, whose: str) -> Document[Placement]:
    """Of the process, or of all processes of the service, of that name."""
    return Document(bus, subjects.PLACEMENT, whose, Placement, subjects.PLACED)


async def placed(bus: Bus, process: str, service: str) -> Placement:
    """What that process of that service shall hold: as is said of itself, else of its service, and
    without what is away from either."""
    own, common = [await placement(bus, one).read() or Placement() for one in (process, service)]
    held = common.held if own.held is None else own.held
    return Placement(held=held, away=(*common.away, *own.away))


def without(names: Sequence[str]) -> Callable[[Placement | None], Placement]:
    """A change: `names` are held no more."""

    def change(before: Placement | None) -> Placement:
        before = before or Placement()
        return Placement(held=before.held, away=tuple(dict.fromkeys((*before.away, *names))))

    return change


def within(names: Sequence[str]) -> Callable[[Placement | None], Placement]:
    """A change: `names` are held again."""

    def change(before: Placement | None) -> Placement:
        before = before or Placement()
        held = before.held
        if held is not None:
            held = tuple(dict.fromkeys((*held, *names)))
        return Placement(held=held, away=tuple(n for n in before.away if n not in names))

    return change
