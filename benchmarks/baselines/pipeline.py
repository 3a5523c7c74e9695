"""diffusers' own pipeline in this process, as fast as it gets here. It knows nothing of asyncio."""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import diffusers
import torch
import transformers
from PIL import Image

from benchmarks.baselines.inpainting import (
    EditJob,
    edit_arguments,
    inpainter,
    kept,
    source_images_of,
)
from services.denoiser.sampling.noise_schedule import make_scheduler
from shared.errors import Misconfigured
from shared.messages import ControlSpec, JobSpec
from shared.models.contracts.network import Conditioning
from shared.models.families.registry import family_of
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.traced import traced
from shared.models.samplers.samplers import SAMPLERS, samplers_for

Layout = Literal["contiguous", "channels_last"]
LAYOUTS: Final[tuple[Layout, ...]] = ("contiguous", "channels_last")

_MEMORY_FORMATS: Final[dict[Layout, torch.memory_format]] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True, slots=True)
class Setup:
    """How a pipeline uses the machine: torch threads, and how the weights of both convolutional
    networks lie in memory."""

    threads: int
    layout: Layout = "contiguous"

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.layout}"


@dataclass(frozen=True, slots=True)
class Guide:
    """A ControlNet (directory or hub id), the picture (a file's bytes) that it steers by, and
    how."""

    source: str
    picture: bytes
    choice: ControlSpec


class Pipeline:
    """diffusers' pipeline of a directory or hub id, in float32: the one that `model_index.json`
    names. With `graph`, SDXL's UNet runs as our denoisers run theirs, without the interpreter:
    what is left to compare then is how work is scheduled. Raises `Misconfigured` for another model.

    Use it from one thread only: torch keeps a team of workers for each thread that computes."""

    def __init__(self, source: str, setup: Setup, graph: bool = False) -> None:
        _be_quiet()
        self._family = family_of(source)
        self._is_flux = self._family.pipeline == "FluxPipeline"
        if graph and self._is_flux:
            raise Misconfigured(
                f"model {source!r}: only SDXL's UNet runs as a graph here; ask for eager baselines"
            )
        self._extra = {} if self._is_flux else {"add_watermarker": False}
        self._pipeline: Any = getattr(diffusers, self._family.pipeline).from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, **self._extra
        )
        self._pipeline.set_progress_bar_config(disable=True)
        config = self._pipeline.scheduler.config
        self._schedulers = {name: scheduler_for(config, name) for name in samplers_for(config)}
        self._controlnets: dict[str, Any] = {}
        """By source."""
        self._guides: tuple[Guide, ...] = ()
        self._controlled: Any = None
        """The pipeline of the same parts with the ControlNets of `_guides`, if there are any."""
        self._inpainter: Any = None
        """The pipeline of the same parts for edits, once there was one."""
        self._fused = False
        self._network: Any = getattr(self._pipeline, self._family.denoiser)
        self._interpreted = self._network.forward
        self._graph = graph
        self.setup = setup
        torch.set_num_threads(setup.threads)
        self._lay_out(setup.layout)

    def set_up(self, setup: Setup) -> None:
        """For all that is drawn from now on."""
        torch.set_num_threads(setup.threads)
        if setup.layout != self.setup.layout:
            self._lay_out(setup.layout)
        self.setup = setup

    def _lay_out(self, layout: Layout) -> None:
        for network in (self._network, self._pipeline.vae, *self._controlnets.values()):
            network.to(memory_format=_MEMORY_FORMATS[layout])
        if self._graph:
            self._trace()

    def _trace(self) -> None:
        """To be done again whenever the weights were moved."""
        unet = self._network
        unet.forward = self._interpreted
        network = traced(SdxlUnet(unet))

        def forward(
            sample: torch.Tensor,
            timestep: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            added_cond_kwargs: Mapping[str, torch.Tensor],
            **unused: object,
        ) -> tuple[torch.Tensor]:
            conditioning = Conditioning(
                {"embeds": encoder_hidden_states, "pooled": added_cond_kwargs["text_embeds"]},
                added_cond_kwargs["time_ids"],
            )
            return (network.predict(sample, timestep.expand(len(sample)), conditioning),)

        unet.forward = forward

    def adapt(self, loras: Mapping[Path, float], fuse: bool = False) -> None:
        """Have these LoRA files, with their scales, and no others, in all that is drawn from now
        on; by PEFT, as diffusers does it. `fuse`: in the weights themselves."""
        if self._fused:
            self._pipeline.unfuse_lora()
        self._pipeline.unload_lora_weights()
        for path in loras:
            self._pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=path.stem
            )
        if loras:
            self._pipeline.set_adapters([path.stem for path in loras], list(loras.values()))
        self._fused = fuse and bool(loras)
        if self._fused:
            self._pipeline.fuse_lora()

    def steer(self, guides: Sequence[Guide]) -> None:
        """Have these ControlNets, with their pictures, and no others, in all that is drawn from now
        on. Each of them is loaded once, and stays."""
        if guides and self._graph:
            raise ValueError("a UNet that runs as a graph takes nothing from ControlNets")
        self._guides, self._controlled = tuple(guides), None
        if guides:
            networks = [self._controlnet(guide.source) for guide in guides]
            self._controlled = diffusers.StableDiffusionXLControlNetPipeline(
                **self._pipeline.components,
                controlnet=networks if len(networks) > 1 else networks[0],
                add_watermarker=False,
            )
            self._controlled.set_progress_bar_config(disable=True)

    def _controlnet(self, source: str) -> Any:
        if source not in self._controlnets:
            network = diffusers.ControlNetModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True
            )
            network.to(memory_format=_MEMORY_FORMATS[self.setup.layout])
            self._controlnets[source] = network
        return self._controlnets[source]

    def choose(
        self, setups: Sequence[Setup], samples: Sequence[Sequence[JobSpec]], trials: int
    ) -> dict[Setup, float]:
        """Draw every batch of `samples` with each of `setups` in turn, and keep the fastest.
        Returns the median seconds of each for all of them."""
        seconds: dict[Setup, list[float]] = {setup: [] for setup in setups}
        for _ in range(trials):
            for setup, found in seconds.items():
                self.set_up(setup)
                for batch in samples:  # a new layout's first forward is a slow one
                    self.draw(batch)
                began = time.perf_counter()
                for batch in samples:
                    self.draw(batch)
                found.append(time.perf_counter() - began)
        medians = {setup: median(found) for setup, found in seconds.items()}
        self.set_up(min(medians, key=lambda setup: medians[setup]))
        return medians

    @torch.inference_mode()
    def draw(
        self, specs: Sequence[JobSpec], on_step: Callable[[], object] | None = None
    ) -> list[torch.Tensor]:
        """One image of each spec, from its seed: uint8 pixels (height, width, 3). An `EditJob` is
        drawn by diffusers' inpaint pipeline, and keeps what its mask does not show.

        All must be `compatible`: they take every step together, prompts are encoded and latents
        decoded in one batch, and both halves of guidance are one forward. `on_step` is called after
        each step."""
        first = specs[0]
        sources = source_images_of(specs)
        pipeline = self._pipeline_for(first)
        pipeline.scheduler = self._schedulers[first.sampler]
        images: torch.Tensor = pipeline(
            prompt=[spec.prompt for spec in specs],
            num_inference_steps=first.steps,
            width=first.width,
            height=first.height,
            generator=[torch.Generator("cpu").manual_seed(spec.seed) for spec in specs],
            output_type="pt",
            callback_on_step_end=None if on_step is None else _telling(on_step),
            **self._guidance(specs),
            **self._controlnet_arguments(),
            **edit_arguments(sources, first),
        ).images
        # As diffusers makes a picture file's bytes of it.
        pixels = (images.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8)
        return kept(list(pixels), sources)

    def _pipeline_for(self, spec: JobSpec) -> Any:
        if spec.edit is None:
            return self._pipeline if self._controlled is None else self._controlled
        if self._guides or not isinstance(spec, EditJob):
            raise ValueError("only edits with a mask and without ControlNets are drawn here")
        if self._inpainter is None:
            self._inpainter = inpainter(self._pipeline, **self._extra)
        return self._inpainter

    def _guidance(self, specs: Sequence[JobSpec]) -> dict[str, Any]:
        """In the pipeline's words; see `shared.models.families.flux.family.Flux`."""
        scale = specs[0].guidance
        if not self._is_flux:
            return {"guidance_scale": scale, "negative_prompt": _negatives(specs)}
        arguments = {"max_sequence_length": min(512, self._pipeline.tokenizer_2.model_max_length)}
        if self._family.embedded_guidance:
            return arguments | {"guidance_scale": scale}
        negatives = [spec.negative_prompt or "" for spec in specs]
        return arguments | {"true_cfg_scale": scale, "negative_prompt": negatives}

    def _controlnet_arguments(self) -> dict[str, Any]:
        """The arguments of the pipeline with ControlNets, in the order of `_guides`."""
        if not self._guides:
            return {}
        choices = [guide.choice for guide in self._guides]
        arguments: dict[str, list[Any]] = {
            "image": [Image.open(io.BytesIO(guide.picture)) for guide in self._guides],
            "controlnet_conditioning_scale": [choice.scale for choice in choices],
            "control_guidance_start": [choice.start for choice in choices],
            "control_guidance_end": [choice.end for choice in choices],
        }
        guess = {"guess_mode": any(choice.guess_mode for choice in choices)}
        if len(choices) > 1:
            return arguments | guess
        return {name: values[0] for name, values in arguments.items()} | guess


def compatible(spec: JobSpec) -> tuple[object, ...]:
    """Specs with equal values can be drawn by one call of the pipeline: it takes one number of
    steps, guidance, sampler, size and strength for a batch, and either negative prompts for all or
    none."""
    return (
        spec.model,
        spec.steps,
        spec.guidance,
        spec.sampler,
        spec.width,
        spec.height,
        spec.negative_prompt is None,
        None if spec.edit is None else spec.edit.strength,
    )


def scheduler_for(config: Mapping[str, Any], sampler: str) -> Any:
    """As diffusers' pipelines take it, for a model with this scheduler config."""
    scheduler = make_scheduler(config, SAMPLERS[sampler])
    if sampler == "flow_dpmpp_2m" and not config.get("use_dynamic_shifting"):
        # The pipeline tells every scheduler the shift of this size; this one wants none then.
        levels = scheduler.set_timesteps
        scheduler.set_timesteps = lambda steps, device, mu: levels(steps, device)
    return scheduler


def _telling(on_step: Callable[[], object]) -> Callable[..., dict[str, Any]]:
    """A callback for the end of each step, in the form that diffusers wants. It returns the tensors
    unchanged."""

    def after_step(
        pipeline: object, step: int, t: object, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        on_step()
        return tensors

    return after_step


def _negatives(specs: Sequence[JobSpec]) -> list[str] | None:
    given = [spec.negative_prompt for spec in specs if spec.negative_prompt is not None]
    return given or None


def _be_quiet() -> None:
    """A scheduler made from another one's config warns of settings it does not know; parts of the
    pipeline that we never use warn of packages they miss."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
