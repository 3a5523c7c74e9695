"""What is shown while a run goes."""

import asyncio
from io import StringIO

import pytest
from rich.console import Console

from loadgen.report.statistics.slo import Absolute, OwnDeadlines
from loadgen.runs import live as live_module
from loadgen.runs.live import line, live, rendered, sparkline
from loadgen.runs.tally import HISTORY_SECONDS, Tally
from tests.conftest import eventually, run
from tests.loadgen.report.shots import busy_run, outcome, shot


def console(terminal: bool) -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, force_terminal=terminal, width=80, color_system=None), text


def test_what_was_sent_and_has_not_ended_is_in_flight() -> None:
    tally = Tally(Absolute(2.0))
    for number in range(3):
        tally.sent(shot(number), 0.1 * number)
    tally.ended(outcome(number=1))
    tally.ended(outcome(number=2, status="failed"))
    view = tally.view(4.0)
    assert (view.sent, view.in_flight, view.done, view.failed) == (3, 1, 1, 1)


def test_what_was_never_sent_is_a_failure_and_not_in_flight() -> None:
    tally = Tally(Absolute(2.0))
    tally.ended(outcome(status="lost", latency=0.0))
    assert (tally.view(1.0).failed, tally.in_flight) == (1, 0)


def test_the_view_agrees_with_the_run() -> None:
    tally = Tally(Absolute(2.0))
    outcomes = busy_run()
    for one in outcomes:
        tally.sent(one.shot, one.sent_at)
        tally.ended(one)
    view = tally.view(65.0)
    done = sorted(one.latency for one in outcomes if one.status == "done")
    assert view.p50 == pytest.approx(done[(len(done) + 1) // 2 - 1], rel=2e-3)
    assert view.attainment == sum(latency <= 2.0 for latency in done) / len(outcomes)


def test_rates_are_of_the_last_whole_seconds() -> None:
    tally = Tally(OwnDeadlines())
    for tenth in range(100):
        tally.sent(shot(tenth), tenth / 10)
        tally.ended(outcome(number=tenth, at=tenth / 10, latency=0.0))
    assert tally.view(10.4).sent_per_second == 10.0
    assert tally.view(12.4).sent_per_second == 6.0
    assert tally.view(10.4).done_per_second == (10,) * 10
    assert tally.view(0.5).sent_per_second == 0.0
    assert tally.view(10.0).attainment is None


def test_only_the_last_minute_is_kept() -> None:
    tally = Tally(OwnDeadlines())
    for second in range(10 * HISTORY_SECONDS):
        tally.sent(shot(second), float(second))
    assert len(tally._sent_in) <= HISTORY_SECONDS + 2
    assert len(tally.view(600.0).done_per_second) == HISTORY_SECONDS


def test_a_sparkline_has_a_block_for_every_value() -> None:
    assert sparkline([0, 1, 4, 8]) == " ▂▅█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "  "


@pytest.mark.parametrize("at", [0.0, 3.0, 30.0])
def test_a_run_in_which_nothing_has_ended_can_be_shown(at: float) -> None:
    view = Tally(Absolute(1.0)).view(at)
    screen, text = console(terminal=True)
    screen.print(rendered(view, 10.0))
    assert "sent 0" in text.getvalue()
    assert "p50 –" in line(view)


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_module, "PLAIN_SECONDS", 0.01)
    screen, text = console(terminal=False)

    async def told(lines: int) -> bool:
        return text.getvalue().count("\n") >= lines

    async def scenario() -> None:
        async with live(screen, Absolute(2.0), 10.0) as display:
            display.sent(shot(1), 0.5)
            assert display.in_flight == 1
            await eventually(lambda: told(2))
            display.ended(outcome(number=1))

    run(scenario())
    assert "1 in flight, 0 done" in text.getvalue()
    last = text.getvalue().splitlines()[-1]
    assert "0 in flight, 1 done, 0 failed, p50 1.00 s, p95 1.00 s, in time 100%" in last
    assert "\x1b" not in text.getvalue()


def test_on_a_terminal_the_display_stays_with_its_last_state() -> None:
    screen, text = console(terminal=True)

    async def scenario() -> None:
        async with live(screen, Absolute(2.0), 10.0) as display:
            display.sent(shot(1), 0.5)
            display.ended(outcome(number=1))

    run(scenario())
    shown = text.getvalue()
    assert "done 1" in shown
    assert "in time 100%" in shown


def test_what_the_run_raises_comes_out_as_it_is() -> None:
    async def scenario() -> None:
        async with live(console(terminal=False)[0], Absolute(2.0), 10.0):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(scenario())


def test_a_display_that_is_cancelled_leaves_no_task() -> None:
    async def scenario() -> None:
        entered = asyncio.Event()

        async def watch() -> None:
            async with live(console(terminal=True)[0], Absolute(2.0), 10.0):
                entered.set()
                await asyncio.Event().wait()

        watching = asyncio.create_task(watch())
        await entered.wait()
        watching.cancel()
        await asyncio.wait([watching])
        assert watching.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())
