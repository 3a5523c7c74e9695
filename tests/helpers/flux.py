"""A tiny random FLUX in diffusers' layout, drawn with by our services' parts and by diffusers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from benchmarks.baselines.pipeline import scheduler_for
from services.denoiser.engine.engine import Engine, OnCheckpoint
from services.denoiser.loras.extension import RowLoras
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.mask_cache.predictor import MaskedSteps
from services.denoiser.rows.row import Row
from services.denoiser.sampling.model_sampling import Sampling
from services.vae.autoencoder import Autoencoder
from shared.models.contracts.family import Family
from shared.models.contracts.network import Conditioning, Network
from shared.models.contracts.text_encoder import TextEncoder
from shared.models.families.registry import family_of
from shared.models.lowrank.bank import Use
from shared.policy.checkpoint_interval import Interval
from tests.conftest import run

TOKENS, WIDTH, POOLED = 12, 32, 24
DYNAMIC: dict[str, Any] = {
    "use_dynamic_shifting": True,
    "base_image_seq_len": 4,
    "max_image_seq_len": 64,
}
"""Of the scheduler: levels depend on the size, as in FLUX.1-dev."""


def make_transformer(guidance_embeds: bool = False, **options: Any) -> FluxTransformer2DModel:
    """With these options of its config beside, or instead of, its own."""
    torch.manual_seed(7)
    settings: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": POOLED,
        "guidance_embeds": guidance_embeds,
        "axes_dims_rope": (4, 6, 6),
    }
    return FluxTransformer2DModel(**settings | options).eval()


def make_clip() -> tuple[CLIPTokenizer, CLIPTextModel]:
    pieces = ["<|startoftext|>", "<|endoftext|>", *ascii_lowercase]
    pieces += [f"{letter}</w>" for letter in ascii_lowercase]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16)
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=POOLED,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return tokenizer, CLIPTextModel(config).eval()


def _t5() -> tuple[T5TokenizerFast, T5EncoderModel]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0)]
    pieces += [(letter, -2.0) for letter in ascii_lowercase]
    tokenizer = T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=TOKENS)
    config = T5Config(
        vocab_size=len(pieces), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=4
    )
    return tokenizer, T5EncoderModel(config).eval()


def make_flux(folder: Path, guidance_embeds: bool = False, **scheduler: Any) -> str:
    """Write one with random weights; `scheduler`: of its config. Returns the directory."""
    transformer = make_transformer(guidance_embeds)
    tokenizer, clip = make_clip()
    tokenizer_2, t5 = _t5()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.36,
        shift_factor=0.12,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae=vae,
        text_encoder=clip,
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )
    pipeline.save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True)
class Wish:
    """One picture."""

    prompt: str = "a red cube"
    seed: int = 1
    steps: int = 4
    guidance: float = 1.0
    sampler: str = "flow_euler"
    negative: str = ""
    size: tuple[int, int] = (64, 64)


class Atelier:
    """The parts of our services for the model in a directory, and diffusers' pipeline for it."""

    def __init__(self, source: str) -> None:
        torch.set_num_threads(1)
        self.source = source
        self.family: Family = family_of(source)
        self.sampling = Sampling.of(self.family)
        self.network = self.load()
        self.encoder: TextEncoder = self.family.text_encoder("cpu", torch.float32)
        self.decoder = Autoencoder(source, "cpu", torch.float32)

    def load(self) -> Network:
        return self.family.network("cpu", torch.float32)

    @cached_property
    def pipeline(self) -> Any:
        pipeline = FluxPipeline.from_pretrained(self.source, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def row(self, wish: Wish, uses: tuple[Use, ...] = (), **fields: Any) -> Row:
        guided = wish.guidance > 1.0 and not self.family.embedded_guidance
        scalars = self.family.scalars(*wish.size, wish.guidance)
        cond, uncond = (
            Conditioning.of_one(one.tensors, scalars)
            for one in self.encoder([wish.prompt, wish.negative], [uses, uses])
        )
        table = self.sampling.table(wish.sampler, wish.steps, *wish.size)
        settings: dict[str, Any] = {
            "job_id": wish.prompt,
            "node": "denoise-0",
            "index": 0,
            "table": table,
            "extensions": (RowLoras(uses),) if uses else (),
        }
        return Row(
            seed=wish.seed,
            shape=self.sampling.latents(*wish.size),
            cond=cond,
            uncond=uncond if guided else None,
            guidance=wish.guidance if guided else 1.0,
            **settings | fields,
        )

    def paint(
        self, rows: Sequence[Row], on_checkpoint: OnCheckpoint | None = None
    ) -> list[torch.Tensor]:
        """All of them at once, by one engine: uint8 pixels (height, width, 3) each. A checkpoint
        is made after each step."""

        async def main() -> list[torch.Tensor]:
            async with Engine(
                self.network, predictors=[LoraWeights(self.network), MaskedSteps()]
            ) as engine:
                runs = (engine.run(row, None, on_checkpoint, Interval(1)) for row in rows)
                return await asyncio.gather(*runs)

        return self.decoder.decode([latents[0] for latents in run(main())])

    def expected(self, wish: Wish) -> torch.Tensor:
        """What diffusers paints."""
        return self.painted(self.pipeline, wish)

    def painted(self, pipeline: Any, wish: Wish, **told: Any) -> torch.Tensor:
        """What a pipeline of these parts paints, if it is `told` this as well."""
        pipeline.scheduler = scheduler_for(self.sampling.scheduler_config, wish.sampler)
        guidance: dict[str, Any] = {"guidance_scale": wish.guidance}
        if not self.family.embedded_guidance:
            guidance = {"true_cfg_scale": wish.guidance, "negative_prompt": wish.negative}
        image = pipeline(
            wish.prompt,
            num_inference_steps=wish.steps,
            width=wish.size[0],
            height=wish.size[1],
            generator=torch.Generator("cpu").manual_seed(wish.seed),
            max_sequence_length=TOKENS,
            output_type="np",
            **guidance,
            **told,
        ).images[0]
        return torch.from_numpy(image * 255).round()


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of two pictures, in 255ths."""
    assert found.shape == expected.shape
    return float((found.float() - expected.float()).abs().max())
