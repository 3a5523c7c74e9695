"""`darkroom calibrate-lora`: how many steps an image may be begun without a LoRA.

SwiftDiffusion (arXiv 2407.02031 §4.2) bounds asynchronous loading by the first step after which
the latents with and without the LoRA have a cosine below 0.99. It depends on the LoRA, so it is
measured for each, on some prompts, and the most sensitive of them counts. What is found lies beside
the LoRA.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import torch

from pocket.captions import sample_captions
from services.denoiser.forward.step import step
from services.denoiser.loras.extension import give
from services.denoiser.loras.predictor import batch_of
from services.denoiser.rows.row import Row
from services.denoiser.sampling.model_sampling import Sampling
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue
from shared.models.contracts.network import Conditioning, Network
from shared.models.contracts.text_encoder import TextEncoder
from shared.models.families.registry import family_of
from shared.models.loras.read import read_adapter
from shared.models.loras.sources.directory import Calibration, LoraDirectory
from shared.models.lowrank.bank import Use

COSINE: Final = 0.99
"""Above it, latents count as the same."""
PROMPTS: Final = 16


def calibrate(
    card: ModelCard,
    lora_directory: LoraDirectory,
    name: str,
    prompts: Sequence[str],
    done: Callable[[int], None] = lambda prompts: None,
) -> Calibration:
    """The calibration of LoRA `name` for the model of `card`, at its default steps, guidance and
    size. `done` is told how many prompts are through. Raises `InvalidRequest` for a name that is
    not in a LoRA directory, `AdapterUnusable` for what does not fit. Blocks."""
    family = family_of(card.source)
    adapter = read_adapter(name, lora_directory.find(name), family)
    network = family.network("cpu", torch.float32)
    network.check(adapter)
    encoder = family.text_encoder("cpu", torch.float32)
    encoder.check(adapter)
    cosines = []
    for number, prompt in enumerate(prompts):
        rows = both_rows(card, Sampling.of(family), encoder, ((adapter, 1.0),), prompt, seed=number)
        cosines.append(cosines_by_step(network, *rows))
        done(number + 1)
    late = late_steps(cosines)
    return Calibration(
        late_steps=late, steps=card.default_steps, cosine=COSINE, prompts=len(prompts)
    )


def late_steps(cosines: Sequence[Sequence[float]], bound: float = COSINE) -> int:
    """Steps after which the latents of no prompt have diverged: `cosines[i][k]` is prompt i's after
    step k + 1. Pure."""
    alike = [next((k for k, c in enumerate(each) if c < bound), len(each)) for each in cosines]
    return min(alike, default=0)


@torch.inference_mode()
def cosines_by_step(network: Network, plain: Row, adapted: Row) -> list[float]:
    """Of the latents of two rows, after each of their steps."""
    found = []
    while not plain.finished:
        flat = take_step(network, (plain, adapted)).flatten(1)
        found.append(float(torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0)))
    return found


def take_step(network: Network, rows: Sequence[Row]) -> torch.Tensor:
    """Have all `rows` one step further. Returns their latents (rows, C, H, W)."""
    result = step(network, batch_of(rows, network))
    for i, row in enumerate(rows):
        row.latents, row.x0_prev = result.x[i : i + 1], result.x0[i : i + 1]
        row.step += 1
    return result.x


def both_rows(
    card: ModelCard,
    sampling: Sampling,
    encoder: TextEncoder,
    uses: tuple[Use, ...],
    prompt: str,
    seed: int,
) -> tuple[Row, Row]:
    """One without the adapters `uses` and one with them, as the model has it by default. Both are
    told the prompt as the adapters have it encoded: what is late is only the denoising network's
    share."""
    size, guidance = (card.default_width, card.default_height), card.default_guidance
    guided = guidance > 1.0 and not card.embedded_guidance
    scalars = sampling.family.scalars(*size, guidance)
    prompted, nothing = encoder([prompt, ""], [uses, uses])
    if encoder.zeros_for_empty_prompt:
        nothing = prompted.zeros()
    cond = Conditioning.of_one(prompted.tensors, scalars)
    uncond = Conditioning.of_one(nothing.tensors, scalars)

    def begin() -> Row:
        return Row(
            job_id="calibration",
            node="denoise-0",
            index=0,
            seed=seed,
            table=sampling.table(card.default_sampler, card.default_steps, *size),
            shape=sampling.latents(*size),
            cond=cond,
            uncond=uncond if guided else None,
            guidance=guidance if guided else 1.0,
        )

    plain, adapted = begin(), begin()
    give(adapted, uses)
    return plain, adapted


def calibrate_to_file(
    catalogue: Catalogue, name: str, prompts: Sequence[str], say: Callable[[str], None]
) -> Path:
    """Calibrate LoRA `name` for the catalogue's default model, on captions of ours if there are no
    `prompts`. Returns the file that it is noted in. Raises as `calibrate` does."""
    path = catalogue.lora_directory.find(name).with_suffix(".json")
    wanted = prompts or sample_captions(PROMPTS)
    found = calibrate(
        catalogue.default,
        catalogue.lora_directory,
        name,
        wanted,
        lambda done: say(f"{done} of {len(wanted)} prompts"),
    )
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    return path
