"""Which blocks of a step use their caches: all, but for the first ones where loads are too slow.

Where nothing is loaded it is always all of them, however long that takes: an image must not depend
on how busy its denoiser was.
"""

from collections.abc import Sequence

from services.denoiser.mask_cache.row_cache import CACHED, FULL, RowCache
from services.denoiser.rows.row import Row
from shared.models.contracts.network import Mode
from shared.policy.block_plan.equal import blocks_in_full
from shared.policy.row_view import StepCost
from shared.policy.step_work import StepWork, total


def choose_modes(rows: Sequence[Row], cost: StepCost) -> None:
    """Have the masked ones of `rows`, which take their next step together, agree on the modes of
    its blocks, and load in the steps to come what these need."""
    masked = [found for row in rows if (found := row.extension(RowCache)) is not None]
    if not masked:
        return
    depth = len(masked[0].modes)
    prefetchers = [each.prefetcher for each in masked if each.prefetcher is not None]
    modes = CACHED * depth
    if prefetchers and cost.known:
        works = (StepWork.full(row.forwards, row.shape_key.tokens) for row in rows)
        parts = (StepWork.of(row.forwards, *_positions(row)) for row in rows)
        modes = block_modes(
            depth,
            whole=cost.predict(total(works)) / depth,
            part=cost.predict(total(parts)) / depth,
            load=sum(each.block_seconds for each in prefetchers),
            head=sum(each.head_seconds for each in prefetchers),
        )
    for each in masked:
        each.modes = modes
    for prefetcher in prefetchers:
        prefetcher.skipped = modes.count("full")


def block_modes(
    depth: int, whole: float, part: float, load: float, head: float
) -> tuple[Mode, ...]:
    """Of `depth` blocks that are all alike: `whole` seconds to compute one in full, `part` with its
    caches, which take `load` seconds to load; the loads began `head` seconds ago.

    Those in full come first: it is known of all tokens what the next block is given, as long as no
    block before used its caches. No other plan ends earlier."""
    full = blocks_in_full(depth, whole, min(part, whole), load, head)
    return FULL * full + CACHED * (depth - full)


def _positions(row: Row) -> tuple[int, int]:
    """Those that a block with caches computes, and those that they attend to."""
    tokens = row.shape_key.tokens
    masked = row.extension(RowCache)
    share = 1.0 if masked is None else masked.share_with(sum(row.shape_key.prompt))
    return round(share * tokens), tokens
