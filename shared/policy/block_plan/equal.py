"""Equal blocks in a row, each computed in full or with its caches: the best plan. Pure, no torch.

What is computed in full needs no load, so it comes first: the loads have that time as well, and of
equal blocks no other order ends earlier (Johnson 1954; see `runs.py`, and `search.py` for blocks
that differ). A plan is then only a number of blocks in full, and each number is tried.
"""


def blocks_in_full(depth: int, whole: float, part: float, load: float, head: float) -> int:
    """How many of `depth` blocks are computed in full, `whole` seconds each, so that the last block
    ends the earliest; the others take `part`, once a load of `load` seconds is over. One stream
    loads, in the order of the blocks, and began `head` seconds before the computation may. If two
    numbers end alike, it is the larger one, which loads less."""
    return min(
        range(depth, -1, -1), key=lambda full: _end(full, depth - full, whole, part, load, head)
    )


def _end(full: int, cached: int, whole: float, part: float, load: float, head: float) -> float:
    """When `cached` blocks after `full` ones are over. If it is a load that holds them up, it is
    the first one or the last: between them, each further one is later by the same."""
    if not cached:
        return full * whole
    first, last = load - head + cached * part, cached * load - head + part
    return max(full * whole + cached * part, first, last)
