"""200 edits with cached masks against the same edits computed exactly.

Pictures of held-out scenes are edited: one shape becomes another one, under a mask as production
has them (`edited_scenes.py`). The first edit of each picture with `mask_mode: cached` is computed
in full, and recorded; five others, of other masks, prompts and seeds, follow one after another.
Only those count whose results say that they were cached. Each is compared with the same request in
`exact` mode.

`ssim` is that of the edited region: the mean over windows whose middle lies in the mask
(`ssim.py`). What it is worth: `ssim_other_seed`, of two exact edits of different seeds. An exact
edit and a cached one also differ in the noise outside the mask: `ssim_noise` is what that does
alone, from the edits that were recorded. `accuracy` is the share of right attributes (there at all,
shape, colour, size) of the edited shape, as the verifier reads them from the picture.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.edit_fidelity.figures import SHOWN, Drawn, rows, sheet, summary
from benchmarks.harness.edited_scenes import (
    Original,
    Picture,
    SceneEdit,
    edit,
    originals,
    token_share,
)
from benchmarks.harness.fleet import OwnFleet, denoisers, own_fleet, render
from benchmarks.harness.flux_model import MODEL
from benchmarks.harness.pixels import rgb
from benchmarks.harness.program import Options, Results, run_program, say
from shared.errors import Misconfigured
from shared.messages import GenerationRequest
from shared.models.catalogue import Catalogue
from shared.models.contracts.network import FULL_FROM

SEED: Final = 5
"""Of the scenes: others than those of the training, and of other programs."""
FIRST_AT_MOST: Final = 0.5
"""Share of a picture's tokens in the mask of its first edit, so that many others can be cached."""
OTHER_SEED: Final = 1 << 20
"""Added to a seed: one that no edit has."""
IN_FLIGHT: Final = 12
"""Jobs on the fleet at a time."""
RECORDING_SECONDS: Final = 60.0
"""For what is recorded to be written after its edit is done. What is not there then is recorded by
a later edit, which does not count."""
LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Size:
    """`edits` of each of `templates`, after the first."""

    templates: int
    edits: int


FULL: Final = Size(templates=40, edits=5)
QUICK: Final = Size(templates=2, edits=2)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The edits of one picture, in order: the first one is recorded."""

    original: Original
    edits: tuple[SceneEdit, ...]
    seed: int
    """Of the first one; the others follow."""

    def request(self, number: int, mask_mode: str, more: int = 0) -> GenerationRequest:
        """For edit `number`, with `more` added to its seed."""
        return self.original.request(self.edits[number], self.seed + number + more, mask_mode)


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else FULL
    planned = plan(size, Catalogue.load([options.model]).default.size_multiple)
    async with own_fleet(options.model, environment={"DARKROOM_CONTROLS": ""}) as fleet:
        drawn = await Studio(fleet).draw(planned)
    cached = [one for one in drawn if one.cached]
    if not cached:
        raise Misconfigured(f"none of {len(drawn)} edits was cached")
    if options.own.contact_sheet is not None:
        shown = Random(SEED).sample(cached, min(SHOWN, len(cached)))
        sheet(shown).save(options.own.contact_sheet, optimize=True)
    return summary(drawn)


def plan(size: Size, token: int) -> list[Series]:
    """Edits that can all be cached but for the first ones, by a model whose tokens have `token` x
    `token` pixels."""
    lot = Random(SEED)
    return [
        Series(original, _edits(original, size.edits, token, lot), seed=1000 * number)
        for number, original in enumerate(originals(size.templates, SEED))
    ]


def _edits(original: Original, count: int, token: int, lot: Random) -> tuple[SceneEdit, ...]:
    first = edit(original.scene, lot, lambda e: token_share([e.mask], token) <= FIRST_AT_MOST)

    def fits(found: SceneEdit) -> bool:
        """Another one, that is not computed in full for what the first one changed."""
        share = token_share([first.mask, found.mask], token)
        return share <= FULL_FROM and found.scene != first.scene

    return (first, *(edit(original.scene, lot, fits) for _ in range(count)))


class Studio:
    """Draws edits in all modes on `fleet`."""

    def __init__(self, fleet: OwnFleet) -> None:
        self._fleet = fleet
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def draw(self, planned: Sequence[Series]) -> list[Drawn]:
        firsts = await asyncio.gather(*(self._cached(series, 0) for series in planned))
        await self._recorded(len(planned))
        say(f"{len(planned)} pictures were edited for the first time")
        others = await asyncio.gather(*(self._others(series) for series in planned))
        say(f"{sum(map(len, others))} edits of them were drawn")
        found = [
            self._compared(series, number, one)
            for series, first, later in zip(planned, firsts, others, strict=True)
            for number, one in enumerate((first, *later))
        ]
        return await asyncio.gather(*found)

    async def _others(self, series: Series) -> list[tuple[Picture, bool]]:
        """One after another: each may mend the activation cache, and the next one is computed with
        that."""
        return [await self._cached(series, number) for number in range(1, len(series.edits))]

    async def _cached(self, series: Series, number: int) -> tuple[Picture, bool]:
        picture, said = await self._rendered(series.request(number, "cached"))
        return picture, bool(said)

    async def _compared(self, series: Series, number: int, near: tuple[Picture, bool]) -> Drawn:
        exact, other = await asyncio.gather(
            self._exact(series.request(number, "exact")),
            self._exact(series.request(number, "exact", OTHER_SEED)),
        )
        return Drawn(series.original, series.edits[number], exact, near[0], other, near[1])

    async def _exact(self, wanted: GenerationRequest) -> Picture:
        picture, said = await self._rendered(wanted)
        if said:
            raise Misconfigured(f"an exact edit was made by {said}")
        return picture

    async def _rendered(self, wanted: GenerationRequest) -> tuple[Picture, list[str]]:
        async with self._slots:
            rendered = await render(self._fleet.darkroom, wanted)
        return rgb(rendered.data), rendered.done.approximations

    async def _recorded(self, count: int) -> None:
        """Until `count` activation caches are written, or it takes too long."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + RECORDING_SECONDS
        while loop.time() < patience:
            found = await denoisers(self._fleet.fleet.bus)
            if sum(one["templates"]["recorded"] for one in found) >= count:
                return
            await asyncio.sleep(LOOK_SECONDS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(model=MODEL)
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="FILE", help="also write a grid of pictures here"
    )


if __name__ == "__main__":
    run_program("edit_fidelity", __doc__ or "", measure, rows, add_arguments)
