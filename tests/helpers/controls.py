"""Tiny random ControlNets for the network of the denoiser's tests, served on a bus in memory, and
diffusers' own pipeline to compare with."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl import (
    StableDiffusionXLControlNetPipeline,
)

from services.controlnet.service import ControlNetService
from services.denoiser.controlnet.client import ControlNets
from services.denoiser.controlnet.state import ControlState, ControlUse
from services.denoiser.rows.row import Row
from services.denoiser.sampling.noise_schedule import make_scheduler
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.jobs.releases import keep_released
from shared.messages.handle import TensorHandle
from shared.models.families.sdxl.unet import SdxlControlNet
from shared.models.samplers.samplers import SAMPLERS
from shared.tensors.torch_io import put_tensor
from tests.helpers.memory_transport import MemoryTransport
from tests.services.denoiser.models import conditioning, make_row, make_unet
from tests.services.denoiser.sampling.test_step_table import SDXL

NAMES = ("edges", "blocks")
SIDE = 64


def make_control(name: str) -> ControlNetModel:
    """With weights of its own where a new one has zeros, so that it says something."""
    torch.manual_seed(NAMES.index(name))
    net = ControlNetModel.from_unet(
        make_unet(), conditioning_embedding_out_channels=(4, 4, 4, 4), load_weights_from_unet=True
    )
    for silent in (
        *net.controlnet_down_blocks,
        net.controlnet_mid_block,
        net.controlnet_cond_embedding.conv_out,
    ):
        torch.nn.init.normal_(silent.weight, std=0.1)
    return net.eval()


@cache
def control(name: str) -> SdxlControlNet:
    torch.set_num_threads(1)
    return SdxlControlNet(make_control(name))


def hint(seed: int) -> torch.Tensor:
    """A picture (1, 3, SIDE, SIDE), 0 to 1."""
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


class Counting(MemoryTransport):
    puts = 0

    def put(self, *arguments: Any, **options: Any) -> TensorHandle:
        self.puts += 1
        return super().put(*arguments, **options)


class Studio:
    """A bus with processes that hold both ControlNets, and one that asks them."""

    def __init__(self, broker: MemoryBroker, seconds: float) -> None:
        self.broker = broker
        self.store: dict[Any, Any] = {}
        self.transport = Counting("denoiser", store=self.store)
        self.transports = [self.transport]
        self.ask = ControlNets(broker.connect("denoiser"), self.transport, seconds)
        self.services: list[ControlNetService] = []
        self._serving: list[asyncio.Task[None]] = []

    async def start(
        self, names: Sequence[str] = NAMES, network: Callable[[str], Any] = control
    ) -> ControlNetService:
        """One more process; it can be asked when this returns."""
        bus: MemoryBus = self.broker.connect("controlnet")
        transport = Counting(f"controlnet-{len(self.services)}", store=self.store)
        self.transports.append(transport)
        service = ControlNetService({name: network(name) for name in names}, bus, transport)
        self.services.append(service)
        self._serving += [asyncio.create_task(service.serve_steps(name)) for name in names]
        self._serving.append(asyncio.create_task(keep_released(bus, transport)))
        await asyncio.sleep(0)
        return service

    async def stop(self) -> None:
        """All processes that were started, politely."""
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        self._serving.clear()

    def put(self, tensor: torch.Tensor) -> TensorHandle:
        return put_tensor(self.transport, tensor, job_id="job", attempt=1, lifetime=60.0)

    def _steer(self, model: str, seed: int, **fields: Any) -> ControlUse:
        return ControlUse(model=model, hint=self.put(control(model).embed(hint(seed))[0]), **fields)

    def row(self, prompt: str, *controls: dict[str, Any], lag: bool = False, **fields: Any) -> Row:
        """A guided one. `controls`: each `model`, `seed` of its picture, fields of `ControlUse`."""
        with_residuals = ControlState(tuple(self._steer(**one) for one in controls), lag)
        texts = tuple(
            {name: self.put(tensor[0]) for name, tensor in half.tensors.items()}
            for half in (conditioning("nothing"), conditioning(prompt))
        )
        return make_row(prompt, extensions=(with_residuals,), texts=texts, **fields)


@asynccontextmanager
async def studio(replicas: int = 1, seconds: float = 20.0) -> AsyncIterator[Studio]:
    found = Studio(MemoryBroker(), seconds)
    for _ in range(replicas):
        await found.start()
    try:
        yield found
    finally:
        await found.stop()
        for service in found.services:
            service.close()


def with_diffusers(
    prompt: str, *controls: dict[str, Any], seed: int = 1, steps: int = 6, guidance: float = 5.0
) -> torch.Tensor:
    """The final latents of `StableDiffusionXLControlNetPipeline`, with Euler."""
    pipeline = StableDiffusionXLControlNetPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=make_unet(),
        controlnet=[make_control(one["model"]) for one in controls],
        scheduler=make_scheduler(SDXL, SAMPLERS["euler"]),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    cond, uncond = conditioning(prompt), conditioning("nothing")
    drawn: torch.Tensor = pipeline(
        image=[hint(one["seed"]) for one in controls],
        prompt_embeds=cond.tensors["embeds"],
        pooled_prompt_embeds=cond.tensors["pooled"],
        negative_prompt_embeds=uncond.tensors["embeds"],
        negative_pooled_prompt_embeds=uncond.tensors["pooled"],
        num_inference_steps=steps,
        guidance_scale=guidance,
        controlnet_conditioning_scale=[one.get("scale", 1.0) for one in controls],
        control_guidance_start=[one.get("start", 0.0) for one in controls],
        control_guidance_end=[one.get("end", 1.0) for one in controls],
        guess_mode=any(one.get("guess_mode", False) for one in controls),
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        return_dict=False,
    )[0]
    return drawn
