"""An image with a LoRA that nobody had before, against the same image without one.

A part of `benchmarks.lora`, on the model of realistic weight (`large_model.py`). Every LoRA is a
new file at a new address, on storage that gives 100 MB/s (`storage.py`). A fleet is asked for
it by that address, and may begin without it; diffusers' pipeline fetches it, loads it
(`load_lora_weights`), with and without fusing it, and draws. All take turns. The fleet has one
denoiser: a second one would help with the steps without a LoRA only, and make them the shorter.
"""

import hashlib
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from benchmarks.baselines.reference import Baseline
from benchmarks.cold_lora.results import Ours, Round, Theirs, summary
from benchmarks.cold_lora.storage import BLOCK_BYTES, slow_storage
from benchmarks.harness import requests
from benchmarks.harness.fleet import own_fleet, render
from benchmarks.harness.large_model import LARGE, SMALL, large_model, lora_file, parameters
from benchmarks.harness.large_model import Size as ModelSize
from benchmarks.harness.pixels import difference
from benchmarks.harness.program import Results, cores, say
from shared.client import Darkroom
from shared.errors import Misconfigured
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, LoraChoice
from shared.models.catalogue import Catalogue

WARM_STEPS: Final = 4
"""Of the images of the round that does not count."""
KEPT_BYTES: Final = 2 * 1024**3
"""Of fetched LoRAs, on disk."""
_JOINED: Final = re.compile(r"late_lora .*: image 0, step (\d+)")


@dataclass(frozen=True, slots=True)
class Cold:
    model: ModelSize
    loras: dict[str, int]
    """Bytes, by name."""
    steps: int
    rounds: int


FULL: Final = Cold(LARGE, {"50mb": 50_000_000, "300mb": 300_000_000}, steps=16, rounds=3)
QUICK: Final = Cold(SMALL, {"50mb": 500_000, "300mb": 3_000_000}, steps=WARM_STEPS, rounds=1)


async def cold(quick: bool) -> Results:
    """Raises `Misconfigured` if a LoRA did not join, or did not count."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as directory:
        here = Path(directory)
        model = large_model(here / "large", size.model)
        (here / "storage").mkdir()
        async with slow_storage(here / "storage") as origin:
            environment = {
                "DARKROOM_LORAS": "",
                "DARKROOM_CONTROLS": "",
                "DARKROOM_LORA_HOSTS": origin,
                "DARKROOM_LORA_DIR": str(here / "kept"),
                "DARKROOM_LORA_DISK_BYTES": str(KEPT_BYTES),
            }
            async with (
                own_fleet(str(model), denoisers=1, environment=environment) as fleet,
                Baseline(str(model), cores()) as baseline,
            ):
                sides = Sides(here, origin, model, fleet.darkroom, baseline)
                rounds = await _rounds(sides, size)
        return summary(rounds, size.loras) | {
            "cold_steps": size.steps,
            "cold_unet_parameters": parameters(model),
        }


async def _rounds(sides: "Sides", size: Cold) -> list[Round]:
    rounds = []
    for number in range(size.rounds + 1):
        [request] = requests.plain(1, size.steps if number else WARM_STEPS, seed=number)
        found = await sides.round(request, size)
        if number:  # the first one warms up
            rounds.append(found)
            parts = ", ".join(f"{n} in {one.seconds:.2f}" for n, one in found.ours.items())
            say(f"cold round {number}/{size.rounds}: {found.plain:.2f} s without, {parts}")
    return rounds


class Sides:
    """A fleet and diffusers' pipeline, and the storage that both fetch from."""

    def __init__(
        self, here: Path, origin: str, model: Path, darkroom: Darkroom, baseline: Baseline
    ) -> None:
        self._here, self._origin, self._model = here, origin, model
        self._darkroom, self._baseline = darkroom, baseline
        self._catalogue = Catalogue.load([str(model)])
        self._numbers = count()

    async def round(self, request: GenerationRequest, size: Cold) -> Round:
        plain = await render(self._darkroom, requests.again(request))
        began = time.perf_counter()
        await self._baseline.draw(validate(request, self._catalogue))
        plain_theirs = time.perf_counter() - began
        found = Round(plain.seconds, plain_theirs, {}, {}, {})
        for name, nbytes in size.loras.items():
            found.ours[name] = await self._ours(request, nbytes, plain.data)
            found.loaded[name] = await self._theirs(request, nbytes, fuse=False)
            found.fused[name] = await self._theirs(request, nbytes, fuse=True)
        return found

    async def _ours(self, request: GenerationRequest, nbytes: int, plain: bytes) -> Ours:
        assert request.steps is not None
        async with self._stored(nbytes) as (url, sha256):
            wanted = msgspec.structs.replace(
                requests.again(request),
                loras=(LoraChoice(url=url, sha256=sha256),),
                lora_late_steps=request.steps,
            )
            drawn = await render(self._darkroom, wanted)
        await self._restored(request)
        joined = [_JOINED.fullmatch(said) for said in drawn.done.approximations]
        if len(joined) != 1 or joined[0] is None:
            said = list(drawn.done.approximations)
            raise Misconfigured(f"the image says {said}, not when its LoRA joined")
        if not difference(drawn.data, plain).max_abs_diff:
            raise Misconfigured("the image is the same as without its LoRA")
        return Ours(drawn.seconds, int(joined[0][1]))

    async def _restored(self, request: GenerationRequest) -> None:
        """Have the denoiser's weights as they were, in case that the LoRA was merged into them: the
        next image shall not be charged for it."""
        await render(self._darkroom, requests.again(request, steps=1))

    async def _theirs(self, request: GenerationRequest, nbytes: int, fuse: bool) -> Theirs:
        path = self._here / f"fetched-{next(self._numbers)}.safetensors"
        async with self._stored(nbytes) as (url, _):
            began = time.perf_counter()
            await fetch(url, path)
            fetched = time.perf_counter()
        await self._baseline.adapt({path: 1.0}, fuse)
        loaded = time.perf_counter()
        await self._baseline.draw(validate(request, self._catalogue))
        drawn = time.perf_counter()
        await self._baseline.adapt({})
        path.unlink()
        return Theirs(fetched - began, loaded - fetched, drawn - loaded)

    @asynccontextmanager
    async def _stored(self, nbytes: int) -> AsyncIterator[tuple[str, str]]:
        """Address and checksum of a LoRA that there never was before."""
        number = next(self._numbers)
        path = self._here / "storage" / f"lora-{number}.safetensors"
        lora_file(path, self._model, nbytes, seed=number)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"{self._origin}/{path.name}", digest
        path.unlink()


async def fetch(url: str, path: Path) -> None:
    """Download a file, as diffusers' users do before they load it."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        response.raise_for_status()
        with path.open("wb") as file:
            async for block in response.content.iter_chunked(BLOCK_BYTES):
                file.write(block)
