"""`python -m benchmarks.serving.network`: the network's own processor time, in a bare process.

Nothing but the forwards that an image cannot do without: the denoising network, run as the denoiser
runs it, on a batch of as many images as asked for, one decode, one prompt. Prints one JSON object
of CPU seconds.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Final

import msgspec
import torch
import transformers

from pocket.captions import sample_captions
from services.vae.autoencoder import Autoencoder
from shared.errors import Misconfigured
from shared.host.torch_setup import prepare_torch
from shared.models.contracts.family import Family
from shared.models.contracts.network import Conditioning, Network
from shared.models.contracts.text_encoder import TextEncoder
from shared.models.families.registry import family_of

SECONDS: Final = 4.0
"""For each of the four measurements."""
WARM_UP: Final = 3


class NetworkTime(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds. `forward`: of the denoising network on one batch of `batch` images."""

    batch: float
    forward: float
    decode: float
    encode: float

    def per_image(self, forwards: float) -> float:
        """For one image, where `forwards` batches were computed for each."""
        return forwards * self.forward + self.decode + self.encode


async def network_time(model: str, batch: float, processes: int, seconds: float) -> NetworkTime:
    """The mean of as many bare processes side by side as a fleet has denoisers: a core whose
    neighbour is busy is slower. Raises `Misconfigured` if one fails."""
    command = (sys.executable, "-m", "benchmarks.serving.network", model, str(batch), str(seconds))

    async def one() -> NetworkTime:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise Misconfigured(f"{' '.join(command[1:])} ended with {process.returncode}")
        return msgspec.json.decode(output, type=NetworkTime)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(processes)]
    found = [task.result() for task in tasks]
    return NetworkTime(
        batch=batch,
        forward=mean(one.forward for one in found),
        decode=mean(one.decode for one in found),
        encode=mean(one.encode for one in found),
    )


@dataclass(frozen=True, slots=True)
class _Networks:
    family: Family
    denoiser: Network
    decoder: Autoencoder
    encoder: TextEncoder

    def latents(self, images: int) -> torch.Tensor:
        """Of the size that the model was trained for."""
        side = self.family.native_side
        return torch.randn(images, self.family.latent_channels, side, side)


def main(model: str, batch: float, seconds: float) -> NetworkTime:
    prepare_torch(1)
    transformers.utils.logging.disable_progress_bar()
    family = family_of(model)
    networks = _Networks(
        family,
        family.network("cpu", torch.float32),
        Autoencoder(model, "cpu", torch.float32),
        family.text_encoder("cpu", torch.float32),
    )
    below, share = int(batch), batch - int(batch)
    low = timed(_forward(networks, max(1, below)), seconds)
    high = timed(_forward(networks, below + 1), seconds)
    latents = networks.latents(1)[0]
    [prompt] = sample_captions(1)
    return NetworkTime(
        batch=batch,
        forward=low + share * (high - low),
        decode=timed(lambda: networks.decoder.decode([latents]), seconds),
        encode=timed(lambda: networks.encoder([prompt]), seconds),
    )


def _forward(networks: _Networks, batch: int) -> Callable[[], object]:
    [encoded] = networks.encoder(sample_captions(1))
    x, t = networks.latents(batch), torch.full((batch,), 500.0)
    conditioning = Conditioning.of_one(encoded.tensors, networks.family.scalars(1, 1, 1.0))
    batch_conditioning = Conditioning.join([conditioning] * batch)

    @torch.inference_mode()
    def forward() -> object:
        return networks.denoiser.predict(x, t, batch_conditioning)

    return forward


def timed(work: Callable[[], object], seconds: float) -> float:
    """CPU seconds of this thread for one call, the mean over about `seconds` after a warm-up."""
    for _ in range(WARM_UP):
        work()
    count, began, used = 0, time.monotonic(), time.thread_time()
    while not count or time.monotonic() - began < seconds:
        work()
        count += 1
    return (time.thread_time() - used) / count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("batch", type=float)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    print(json.dumps(msgspec.to_builtins(main(options.model, options.batch, options.seconds))))
