"""The table of `benchmarks.swift`, and what the model says of it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Final

from benchmarks.harness.program import Cells, Results
from benchmarks.swift.model import (
    Asked,
    BaselineParts,
    Devices,
    Parts,
    baseline_seconds,
    fleet_seconds,
)
from benchmarks.swift.sides import Drawn

SIDES: Final = ("diffusers", "diffusers_all_cores", "fleet")
MOST: Final = "3C2L"
MORE_DEVICES: Final = (
    Devices(denoisers=1, controls=1),
    Devices(denoisers=1, controls=3, reads=True),
    Devices(denoisers=2, controls=3, reads=True),
)
PAPERS_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Cell:
    """The same image by each of `SIDES`."""

    asked: Asked
    drawn: Mapping[str, Drawn]
    cores: Mapping[str, int]
    """That each side held."""

    @property
    def ratio(self) -> float:
        """To diffusers on one core."""
        return self.drawn["diffusers"].seconds / self.drawn["fleet"].seconds

    @property
    def ratio_all_cores(self) -> float:
        return self.drawn["diffusers_all_cores"].seconds / self.drawn["fleet"].seconds


def summary(rounds: Sequence[Sequence[Cell]]) -> Results:
    """Of rounds with the same cells in the same order."""
    columns = {cells[0].asked.name: cells for cells in zip(*rounds, strict=True)}
    most = columns[MOST]
    return {
        "ratio_3c2l": round(median(cell.ratio for cell in most), 3),
        "ratio_3c2l_all_cores": round(median(cell.ratio_all_cores for cell in most), 3),
        "table": {
            name: {side: _figures(side, cells) for side in SIDES} for name, cells in columns.items()
        },
        "late_steps": {
            name: max(cell.drawn["fleet"].late for cell in cells)
            for name, cells in columns.items()
            if cells[0].asked.loras
        },
        "rounds": len(rounds),
    }


def _figures(side: str, cells: Sequence[Cell]) -> dict[str, float]:
    seconds = median(cell.drawn[side].seconds for cell in cells)
    return {
        "seconds": round(seconds, 3),
        "cores": cells[0].cores[side],
        "images_per_core_second": round(1.0 / (seconds * cells[0].cores[side]), 4),
        "images_per_cpu_second": round(1.0 / median(cell.drawn[side].cpu for cell in cells), 4),
    }


def prediction(
    parts: Parts,
    baseline: BaselineParts,
    cells: Sequence[Asked],
    here: Devices,
    table: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Results:
    """The parts, what they add up to in the measured setting `here`, how far that is from `table`
    (+0.1: predicted 10% too long), and the same for more devices."""
    return {
        "parts": _rounded(asdict(parts)),
        "baseline_parts": _rounded(asdict(baseline)),
        "here": {
            asked.name: _against(parts, baseline, asked, here, table[asked.name]) for asked in cells
        },
        "devices": {
            str(devices.count): _with(devices, parts, baseline, cells) for devices in MORE_DEVICES
        },
    }


def _against(
    parts: Parts,
    baseline: BaselineParts,
    asked: Asked,
    here: Devices,
    measured: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    fleet, diffusers = fleet_seconds(parts, asked, here), baseline_seconds(baseline, asked)
    return {
        "fleet": round(fleet, 3),
        "fleet_error": round(fleet / measured["fleet"]["seconds"] - 1.0, 3),
        "diffusers": round(diffusers, 3),
        "diffusers_error": round(diffusers / measured["diffusers"]["seconds"] - 1.0, 3),
    }


def _with(
    devices: Devices, parts: Parts, baseline: BaselineParts, cells: Sequence[Asked]
) -> dict[str, Any]:
    most = next(asked for asked in cells if asked.name == MOST)
    longer = replace(most, steps=PAPERS_STEPS, late=most.late * PAPERS_STEPS // most.steps)

    def ratio(asked: Asked) -> float:
        return baseline_seconds(baseline, asked) / fleet_seconds(parts, asked, devices)

    return {
        "seconds": {asked.name: round(fleet_seconds(parts, asked, devices), 3) for asked in cells},
        "ratio_3c2l": round(ratio(most), 2),
        f"ratio_3c2l_of_{PAPERS_STEPS}_steps": round(ratio(longer), 2),
    }


def _rounded(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(seconds, 4) for name, seconds in parts.items()}


def rows(results: Results) -> Cells:
    table = results["table"]
    lines: Cells = [["", *table]]
    for figure in ("seconds", "images_per_core_second", "images_per_cpu_second"):
        for side in SIDES:
            values = [cell[side][figure] for cell in table.values()]
            lines.append([f"{side}, {figure.replace('_', ' ')}", *values])
    here = results["model"]["here"]
    for side in ("diffusers", "fleet"):
        told = [f"{cell[side]:.2f} ({cell[f'{side}_error']:+.0%})" for cell in here.values()]
        lines.append([f"{side}, seconds by the model", *told])
    for count, found in results["model"]["devices"].items():
        told = [f"{seconds:.2f}" for seconds in found["seconds"].values()]
        lines.append([f"fleet, seconds by the model with {count} devices", *told])
    empty = [""] * (len(table) - 1)
    return [*lines, *([n, *empty, results[n]] for n in ("ratio_3c2l", "ratio_3c2l_all_cores"))]
