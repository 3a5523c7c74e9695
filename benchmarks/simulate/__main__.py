"""`python -m benchmarks.simulate`"""

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Final

from benchmarks import simulate
from benchmarks.harness.program import Options, Results, run_program, say
from benchmarks.simulate.clusters import Setting, devices_needed, setting_of, speed, study
from benchmarks.simulate.reality import against_reality
from loadgen.simulator.profiles import h800
from loadgen.simulator.studies.names import OURS, SYSTEMS

SIZES: Final = (8, 32, 1024)
PRECISION: Final = 0.05
COARSE: Final = 0.15
"""Of rates on the largest cluster, whose runs take longest, and of a smoke run."""
LARGE: Final = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sizes", type=_sizes, default=SIZES, help="devices of the clusters (default 8,32,1024)"
    )
    parser.add_argument(
        "--settings",
        type=_settings,
        default=tuple(h800.SETTINGS),
        help="which of " + ", ".join(h800.SETTINGS) + " (default all)",
    )
    parser.add_argument(
        "--no-fleet", action="store_true", help="leave out the part that needs a fleet"
    )


async def measure(options: Options) -> Results:
    own = options.own
    found: Results = {}
    if not own.no_fleet:
        found |= await against_reality(options.model, options.quick)
    sizes = own.sizes[:1] if options.quick else own.sizes
    settings = [setting_of(name) for name in (own.settings[:1] if options.quick else own.settings)]
    clusters = {}
    for devices in sizes:
        say(f"{devices} devices")
        coarse = options.quick or devices >= LARGE
        precision = COARSE if coarse else PRECISION
        clusters[devices] = study(settings, devices, precision, devices == min(sizes))
        found[f"rate_ratio_{devices}"] = clusters[devices]["rate_ratio"]
        found[f"possible_ratio_{devices}"] = clusters[devices]["possible_ratio"]
    smallest, largest = min(sizes), max(sizes)
    found["burst_ratio"] = clusters[smallest]["burst_ratio"]
    found["gpus_ratio"] = _gpus_ratio(settings, smallest, clusters[smallest])
    rate = clusters[largest]["settings"][settings[0].name]["rates"][OURS]
    timed = speed(settings[0], largest, 0.7 * rate)
    for figure in ("decide_us", "step_us", "place_ms_per_job", "seconds_simulated_per_second"):
        found[figure] = timed[figure]
    return found | {"speed": timed, "clusters": clusters}


def _gpus_ratio(settings: Sequence[Setting], devices: int, clusters: Results) -> float | None:
    """The median over settings."""
    ratios = []
    for setting in settings:
        rates = clusters["settings"][setting.name]["rates"]
        best = max(rate for name, rate in rates.items() if name != OURS)
        if best > 0.0:
            needed = devices_needed(setting, devices, best)
            theirs = [n for name, n in needed.items() if name != OURS and n is not None]
            ours = needed[OURS]
            if ours is not None and theirs:
                ratios.append(ours / min(theirs))
    return round(median(ratios), 3) if ratios else None


def rows(results: Results) -> list[list[str]]:
    lines = [["", "devices", *SYSTEMS, "ratio"]]
    for devices, cluster in results["clusters"].items():
        for name, one in cluster["settings"].items():
            for figure in ("rates", "bursts"):
                if figure in one:
                    values = [f"{one[figure][system]:g}" for system in SYSTEMS]
                    ratio = one[f"{figure[:-1]}_ratio"]
                    lines.append([f"{name}, {figure}", str(devices), *values, str(ratio)])
    empty = [""] * len(SYSTEMS)
    for figure, value in results.items():
        if isinstance(value, float):
            lines.append([figure, "", *empty, f"{value:g}"])
    return lines


def _sizes(text: str) -> tuple[int, ...]:
    found = tuple(int(word) for word in text.split(","))
    if not all(1 <= devices <= LARGE for devices in found):
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 1 to {LARGE}")
    return found


def _settings(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    for name in found:
        if name not in h800.SETTINGS:
            allowed = ", ".join(h800.SETTINGS)
            raise argparse.ArgumentTypeError(f"{name} is not allowed; allowed: {allowed}")
    return found


if __name__ == "__main__":
    run_program("simulate", simulate.__doc__ or "", measure, rows, add_arguments)
