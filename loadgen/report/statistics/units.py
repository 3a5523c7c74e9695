"""Numbers for people: three significant digits, and a unit that fits. Pure."""

from collections.abc import Callable
from functools import partial
from math import floor, log10
from typing import Final

from loadgen.report.statistics.model import Attainment

NOTHING: Final = "–"


def seconds_text(seconds: float | None) -> str:
    """`950 µs`, `12.3 ms`, `4.56 s`, `12 min 30 s`."""
    if seconds is None:
        return NOTHING
    if seconds >= 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    if seconds >= 0.9995:
        return f"{number_text(seconds)} s"
    if seconds >= 0.9995e-3:
        return f"{number_text(seconds * 1e3)} ms"
    return f"{number_text(seconds * 1e6)} µs" if seconds else "0 s"


def number_text(value: float | None) -> str:
    """Three significant digits, but no digit of a whole number lost."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    decimals = max(0, 2 - floor(log10(abs(rounded))))
    return f"{value:.{decimals}f}"


def percent_text(share: float | None) -> str:
    """`97.3%`; 100% and 0% only where it is exactly that."""
    if share is None:
        return NOTHING
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return f"{min(max(share * 100, 0.1), 99.9):.1f}%"


def attainment_text(attainment: Attainment | None) -> str:
    """`97.3% (95.1 to 98.5)`: the share and its interval."""
    if attainment is None:
        return NOTHING
    low, high = (f"{100 * bound:.1f}" for bound in (attainment.low, attainment.high))
    return f"{percent_text(attainment.share)} ({low} to {high})"


def bytes_text(count: float) -> str:
    if count < 1e3:
        return f"{count:.0f} B"
    for unit, scale in (("kB", 1e3), ("MB", 1e6)):
        if count < 1e3 * scale:
            return f"{number_text(count / scale)} {unit}"
    return f"{number_text(count / 1e9)} GB"


def tick_text(width: float) -> Callable[[float], str]:
    """Writes multiples of `width` with just the decimals that they need, and thousands as `k`."""
    for least, unit in ((1e6, "M"), (1e3, "k")):
        if width >= least:
            return partial(_scaled, least=least, unit=unit)
    decimals = max(0, -floor(log10(width) + 1e-9))
    return lambda value: f"{value:.{decimals}f}"


def _scaled(value: float, least: float, unit: str) -> str:
    return f"{value / least:g}{unit}" if value else "0"
