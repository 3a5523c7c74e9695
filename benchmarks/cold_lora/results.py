"""What `benchmarks/cold_lora/` makes of what it sees. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.harness.program import Cells, Results


@dataclass(frozen=True, slots=True)
class Ours:
    seconds: float
    joined: int
    """The step, from 1, that was the first with the LoRA."""


@dataclass(frozen=True, slots=True)
class Theirs:
    fetch: float
    load: float
    """And fuse, if it does."""
    draw: float

    @property
    def seconds(self) -> float:
        return self.fetch + self.load + self.draw


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds without a LoRA, and with each of them by name."""

    plain: float
    plain_theirs: float
    ours: dict[str, Ours]
    loaded: dict[str, Theirs]
    fused: dict[str, Theirs]


def summary(rounds: Sequence[Round], sizes: Mapping[str, int]) -> Results:
    """Ratios are medians of those within a round, each side's to its own image without a LoRA.
    `sizes`: the LoRAs' bytes by name."""
    found: Results = {}
    parts: defaultdict[str, Results] = defaultdict(dict)
    for name, nbytes in sizes.items():
        ratio = median(r.ours[name].seconds / r.plain for r in rounds)
        found[f"cold_ratio_{name}"] = round(ratio, 3)
        parts[name] = {
            "bytes": nbytes,
            "seconds": round(median(r.ours[name].seconds for r in rounds), 2),
            "joined_at_steps": [r.ours[name].joined for r in rounds],
            "diffusers": _theirs([r.loaded[name] for r in rounds], rounds),
            "diffusers_fused": _theirs([r.fused[name] for r in rounds], rounds),
        }
    return found | {
        "cold": parts,
        "cold_plain_seconds": round(median(r.plain for r in rounds), 2),
        "cold_diffusers_plain_seconds": round(median(r.plain_theirs for r in rounds), 2),
        "cold_rounds": len(rounds),
    }


def _theirs(found: Sequence[Theirs], rounds: Sequence[Round]) -> Results:
    ratios = [one.seconds / r.plain_theirs for one, r in zip(found, rounds, strict=True)]
    return {
        "ratio": round(median(ratios), 3),
        "seconds": round(median(one.seconds for one in found), 2),
        "fetch": round(median(one.fetch for one in found), 2),
        "load": round(median(one.load for one in found), 2),
        "draw": round(median(one.draw for one in found), 2),
    }


def rows(report: Results) -> Cells:
    """Further lines of the table of `benchmarks.lora`."""
    lines: Cells = [["cold, no LoRA: seconds", report["cold_plain_seconds"]]]
    for name, one in report["cold"].items():
        lines.append([f"cold, {name}", one["seconds"], report[f"cold_ratio_{name}"]])
        for side in ("diffusers", "diffusers_fused"):
            lines.append([f"cold, {name}, {side}", one[side]["seconds"], one[side]["ratio"]])
    return lines
