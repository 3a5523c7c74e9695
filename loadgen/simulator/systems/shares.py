"""How many processes a workflow gets, by its load. Pure."""

from collections.abc import Mapping


def apportioned(load: Mapping[str, float], count: int) -> dict[str, int]:
    """`count` (at least as many as there are loads), in proportion to `load` and at least one each:
    one after another to whoever has the most load for each it has (Jefferson 1792). None, if there
    is no load."""
    found = dict.fromkeys(load, 1)
    for _ in range(count - len(load) if load else 0):
        found[max(found, key=lambda name: load[name] / found[name])] += 1
    return found


def packed(load: Mapping[str, float], count: int) -> list[tuple[str, ...]]:
    """All names in `count` parts of about the same load, the largest first (Graham 1969)."""
    parts: list[list[str]] = [[] for _ in range(count)]
    sums = [0.0] * count
    for name in sorted(load, key=lambda name: -load[name]):
        least = min(range(count), key=lambda k: sums[k])
        parts[least].append(name)
        sums[least] += load[name]
    return [tuple(part) for part in parts if part]
