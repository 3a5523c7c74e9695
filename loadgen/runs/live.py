"""Shows a person how a run gets on: a live display on a terminal, a line now and then elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.report.statistics.slo import Slo
from loadgen.report.statistics.units import number_text, percent_text, seconds_text
from loadgen.runs.tally import Tally, View

LIVE_SECONDS: Final = 0.25
PLAIN_SECONDS: Final = 5.0
BAR_WIDTH: Final = 32
BLOCKS: Final = "▁▂▃▄▅▆▇█"


class Display:
    """The run's observer. `in_flight` counts what was sent and has not ended."""

    def __init__(self, slo: Slo) -> None:
        self._tally = Tally(slo)
        self._began: float | None = None

    def sent(self, shot: Shot, at: float) -> None:
        self._set_clock(at)
        self._tally.sent(shot, at)

    def ended(self, outcome: Outcome) -> None:
        self._set_clock(outcome.ended_at)
        self._tally.ended(outcome)

    @property
    def in_flight(self) -> int:
        return self._tally.in_flight

    def view(self) -> View:
        now = asyncio.get_running_loop().time()
        return self._tally.view(0.0 if self._began is None else now - self._began)

    def _set_clock(self, at: float) -> None:
        """The first event tells when the run began."""
        if self._began is None:
            self._began = asyncio.get_running_loop().time() - at


@asynccontextmanager
async def live(console: Console, slo: Slo, seconds: float) -> AsyncIterator[Display]:
    """Show a run of `seconds` while the context is open, and its last state when it is left."""
    display = Display(slo)
    screen = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def show() -> None:
        if screen:
            screen.update(rendered(display.view(), seconds), refresh=True)
        else:
            console.print(line(display.view()), highlight=False, markup=False, soft_wrap=True)

    with screen or nullcontext():
        # Not a task group around the yield: it would wrap what the body raises.
        showing = asyncio.create_task(_keep(show, LIVE_SECONDS if screen else PLAIN_SECONDS))
        try:
            yield display
        finally:
            showing.cancel()
            await asyncio.wait([showing])
            show()
            if not showing.cancelled():
                showing.result()


async def _keep(show: Callable[[], None], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        show()


def rendered(view: View, seconds: float) -> RenderableType:
    """For a terminal. Pure."""
    numbers = Table.grid(padding=(0, 3))
    numbers.add_row(
        _fact("sent", str(view.sent)),
        _fact("rate", f"{number_text(view.sent_per_second)}/s"),
        _fact("in flight", str(view.in_flight)),
        _fact("done", str(view.done)),
        _fact("failed", str(view.failed), "bold red" if view.failed else "bold"),
    )
    numbers.add_row(
        _fact("p50", seconds_text(view.p50)),
        _fact("p95", seconds_text(view.p95)),
        _fact("in time", percent_text(view.attainment)),
    )
    return Group(_time(view.at, seconds), numbers, _history(view))


def _time(at: float, seconds: float) -> Table:
    row = Table.grid(padding=(0, 2))
    state = f"{at:.0f} s of {seconds:.0f} s" if at <= seconds else f"{at:.0f} s, draining"
    bar = ProgressBar(total=seconds, completed=min(at, seconds), width=BAR_WIDTH)
    row.add_row(bar, Text(state))
    return row


def _fact(name: str, value: str, style: str = "bold") -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, style))


def _history(view: View) -> Text:
    highest = max(view.done_per_second, default=0)
    return Text.assemble(
        ("done/s ", "dim"), (sparkline(view.done_per_second), "cyan"), (f" max {highest}", "dim")
    )


def sparkline(values: Sequence[float]) -> str:
    """One block per value, as high as its part of the largest; nothing at all is a space."""
    highest = max(values, default=0)
    return "".join(
        BLOCKS[round(value / highest * (len(BLOCKS) - 1))] if value else " " for value in values
    )


def line(view: View) -> str:
    """For a file. Pure."""
    return (
        f"{view.at:.0f} s: {view.sent} sent ({number_text(view.sent_per_second)}/s), "
        f"{view.in_flight} in flight, {view.done} done, {view.failed} failed, "
        f"p50 {seconds_text(view.p50)}, p95 {seconds_text(view.p95)}, "
        f"in time {percent_text(view.attainment)}"
    )
