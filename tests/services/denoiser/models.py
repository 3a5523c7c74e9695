"""A tiny random SDXL-style network, rows for it, and the diffusers loop to compare with."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from services.denoiser.loras.extension import RowLoras
from services.denoiser.rows.row import Row
from services.denoiser.sampling.noise_schedule import make_scheduler
from services.denoiser.sampling.step_table import build_step_table
from shared.models.contracts.network import Conditioning, Control
from shared.models.families.sdxl.family import Sdxl
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.files.safetensors_header import Shapes
from shared.models.lowrank.bank import Bank, Products, Use
from shared.models.lowrank.weights import Adapter
from shared.models.samplers.samplers import SAMPLERS
from shared.residency.item import Pieces
from tests.conftest import HANG_SECONDS
from tests.helpers.loras import shapes_of
from tests.services.denoiser.sampling.test_step_table import SDXL

WIDTH, POOLED, LENGTH = 16, 12, 5
SHAPE = (4, 8, 8)
TIME_IDS = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])


def make_unet(**options: Any) -> UNet2DConditionModel:
    """With these options of its config beside, or instead of, its own."""
    torch.manual_seed(7)
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 1,
        "attention_head_dim": (2, 4),
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": POOLED + 6 * 4,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**settings | options).eval()


class Toy(Sdxl):
    """Without files: its layers are those of `make_unet`, and one of a text encoder."""

    @cached_property
    def layers(self) -> dict[str, Shapes]:
        own = shapes_of(make_unet())
        return {"unet": own, "text_encoder": {"q_proj": (4, 4)}, "text_encoder_2": {}}


@cache
def family() -> Sdxl:
    return Toy("", make_unet().config)


@cache
def network() -> SdxlUnet:
    torch.set_num_threads(1)
    return SdxlUnet(make_unet())


def conditioning(prompt: str, length: int = LENGTH) -> Conditioning:
    generator = torch.Generator().manual_seed(sum(map(ord, prompt)))
    embeds = torch.randn(1, length, WIDTH, generator=generator)
    pooled = torch.randn(1, POOLED, generator=generator)
    return Conditioning({"embeds": embeds, "pooled": pooled}, TIME_IDS)


class Plain:
    """The network, for tests that do something at each forward; without adapters."""

    def __init__(self) -> None:
        self.device, self.dtype = network().device, network().dtype

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        return network().predict(x, t, conditioning, bank, control)

    def check(self, adapter: Adapter) -> None:
        network().check(adapter)

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        return network().bank(images)

    def product_bytes(self, uses: Sequence[Use]) -> int:
        return network().product_bytes(uses)

    def products(self, uses: Sequence[Use]) -> Pieces[Products]:
        return network().products(uses)

    def merge(self, uses: Sequence[Use], prepared: Products | None = None) -> None:
        raise AssertionError("the network of all tests keeps its weights")


class Gated(Plain):
    """Each forward waits for a permit, and `fails` says whose raise. `seen` keeps the prompts of
    the rows of each forward that ran, `asking` those of the one that began last."""

    def __init__(self, *prompts: str) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.fails: Callable[[torch.Tensor], bool] = lambda embeds: False
        self.prompts = prompts
        self.seen: list[tuple[str, ...]] = []
        self.asking: tuple[str, ...] = ()
        self._begun = self._let = 0

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        self.asking = self.present(conditioning.tensors["embeds"])
        self.asked.release()
        if not self.permits.acquire(timeout=HANG_SECONDS):
            raise TimeoutError("the test never let this step run")
        if self.fails(conditioning.tensors["embeds"]):
            raise RuntimeError("out of memory")
        self.seen.append(self.asking)
        return super().predict(x, t, conditioning, bank, control)

    def present(self, embeds: torch.Tensor) -> tuple[str, ...]:
        """Which of `prompts` are among `embeds`."""
        known = {prompt: conditioning(prompt).tensors["embeds"][0] for prompt in self.prompts}
        return tuple(p for p, own in known.items() if any(torch.equal(own, e) for e in embeds))

    def open(self) -> None:
        self.let(10_000)

    def let(self, forwards: int = 1) -> None:
        self.permits.release(forwards)
        self._let += forwards

    async def stepping(self) -> None:
        """Return when the next forward has begun."""
        assert await asyncio.to_thread(self.asked.acquire, timeout=HANG_SECONDS), (
            "no step was taken"
        )
        self._begun += 1

    async def until(self, *prompts: str) -> None:
        """Let forwards run, and return when the next one of exactly these rows has begun."""
        while True:
            if self._begun > self._let:
                self.let()
            await self.stepping()
            if self.asking == prompts:
                return

    def count(self, prompt: str) -> int:
        """Steps that were taken of this row."""
        return sum(prompt in present for present in self.seen)


def make_row(
    prompt: str = "a red cube",
    *,
    seed: int = 1,
    sampler: str = "euler",
    steps: int = 6,
    guidance: float = 5.0,
    adapters: tuple[Use, ...] = (),
    **fields: Any,
) -> Row:
    settings: dict[str, Any] = {
        "job_id": prompt,
        "node": "denoise-0",
        "index": 0,
        "shape": SHAPE,
        "table": build_step_table(SDXL, sampler, steps),
        "extensions": (RowLoras(adapters),) if adapters else (),
    } | fields
    return Row(
        seed=seed,
        cond=conditioning(prompt),
        uncond=conditioning("nothing") if guidance > 1.0 else None,
        guidance=guidance,
        **settings,
    )


def with_diffusers(
    prompt: str = "a red cube", *, unet: UNet2DConditionModel | None = None, **settings: Any
) -> torch.Tensor:
    """The loop of diffusers' `StableDiffusionXLPipeline.__call__`, from latents to latents. `unet`:
    instead of `network`'s."""
    if unet is None:
        return _with_network(prompt, **settings)
    return _with_diffusers(unet, prompt, **settings)


@cache
def _with_network(prompt: str, **settings: Any) -> torch.Tensor:
    return _with_diffusers(network().module, prompt, **settings)


@torch.inference_mode()
def _with_diffusers(
    unet: UNet2DConditionModel,
    prompt: str,
    *,
    seed: int = 1,
    sampler: str = "euler",
    steps: int = 6,
    guidance: float = 5.0,
) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    scheduler = make_scheduler(SDXL, SAMPLERS[sampler])
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    cond, uncond = conditioning(prompt), conditioning("nothing")
    halves = [uncond, cond] if guidance > 1.0 else [cond]
    added = {
        "text_embeds": torch.cat([half.tensors["pooled"] for half in halves]),
        "time_ids": torch.cat([half.scalars for half in halves]),
    }
    embeds = torch.cat([half.tensors["embeds"] for half in halves])
    noise = torch.randn((1, *SHAPE), generator=generator)
    latents: torch.Tensor = noise * scheduler.init_noise_sigma
    extra = {"generator": generator} if sampler == "euler_ancestral" else {}
    for t in scheduler.timesteps:
        x = scheduler.scale_model_input(torch.cat([latents] * len(halves)), t)
        out = unet(x, t, encoder_hidden_states=embeds, added_cond_kwargs=added).sample
        if guidance > 1.0:
            out_uncond, out_cond = out.chunk(2)
            out = out_uncond + guidance * (out_cond - out_uncond)
        latents = scheduler.step(out, t, latents, **extra).prev_sample
    return latents
