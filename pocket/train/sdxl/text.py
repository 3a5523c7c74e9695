"""Stage 2: both text encoders, taught to understand captions before any picture is painted.

A UNet that must learn what words mean while it learns to paint is slow at both. Here the
encoders learn to say which shape, colour and size belongs at each place, from the very tensors
that SDXL hands its UNet: the penultimate hidden states of both, and the pooled projection.
"""

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pocket.captions import paraphrase, terse
from pocket.scenes import (
    Scene,
    held_out_scenes,
    training_scene,
)
from pocket.train.common.probe import Probe, losses, split_kinds, targets
from pocket.train.common.run import Run, cosine, set_rate
from pocket.train.sdxl.tokenizer import MAX_LENGTH, write_tokenizer

STEPS, BATCH = 2000, 64
RATE, WARMUP = 1.5e-3, 100
WIDTHS, LAYERS = (96, 128), 4
TERSE_SHARE = 0.12
SAVE_EVERY = 100


@dataclass(slots=True)
class TextEncoders:
    """SDXL's text side: two towers and their one tokenizer."""

    tokenizer: CLIPTokenizer
    first: CLIPTextModel
    second: CLIPTextModelWithProjection

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states (n, MAX_LENGTH, 224) and pooled projections (n, 128), as SDXL's."""
        ids = self.tokenizer(
            captions,
            padding="max_length",
            max_length=MAX_LENGTH,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.first.device)
        first = self.first(ids, output_hidden_states=True)
        second = self.second(ids, output_hidden_states=True)
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        return hidden, second.text_embeds

    def modules(self) -> nn.ModuleList:
        """Both towers, to train, save and load them together."""
        return nn.ModuleList([self.first, self.second])


def build_text() -> TextEncoders:
    """Untrained encoders and their tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(Path(folder))
    first, second = (_config(width, tokenizer) for width in WIDTHS)
    return TextEncoders(tokenizer, CLIPTextModel(first), CLIPTextModelWithProjection(second))


def _config(width: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        hidden_act="gelu",
        attn_implementation="eager",  # the fused kernel's backward is slower at this size
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class Encoders(Protocol):
    """What can be taught: captions to hidden states and a pooled vector, and what is trained."""

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]: ...

    def modules(self) -> nn.ModuleList: ...


def train_text(run: Run) -> TextEncoders:
    """Train, or resume, or just load what is finished."""
    torch.manual_seed(run.seed)
    text = build_text()
    teach(run, "text", text, Probe(sum(WIDTHS), WIDTHS[1]), STEPS)
    return text


def teach(run: Run, stage: str, text: Encoders, probe: Probe, steps: int) -> None:
    """Train encoders until the probe reads the scene from their tensors; leaves them frozen.

    Moves what is trained to the run's device.
    """
    modules = nn.ModuleList([text.modules(), probe]).to(run.device)
    optimizer = torch.optim.AdamW(modules.parameters(), RATE, weight_decay=1e-2)
    first = 0
    if state := run.load(stage):
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in range(first, steps):
        set_rate(optimizer, cosine(step, steps, RATE, WARMUP))
        captions, wanted = _batch(run.rng(stage, step))
        with run.half():
            opinions = probe(*text(captions))
        loss = torch.stack(losses(opinions, wanted.to(run.device))).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        if done % SAVE_EVERY == 0 or done == steps or run.out_of_time():
            run.log(stage, done, loss=loss.item(), **evaluate_text(text, probe, run))
            run.save(
                stage,
                {
                    "modules": modules.state_dict(),
                    "step": done,
                    "optimizer": optimizer.state_dict(),
                },
            )
        if run.out_of_time():
            break
    text.modules().eval().requires_grad_(False)


def _batch(rng: random.Random) -> tuple[list[str], Tensor]:
    captions, rows = [], []
    for _ in range(BATCH):
        scene = training_scene(rng)
        caption, left_open = describe(scene, rng)
        captions.append(caption)
        rows.append(targets(scene, left_open))
    return captions, torch.tensor(rows)


def describe(scene: Scene, rng: random.Random) -> tuple[str, frozenset[str]]:
    """A caption to train on, and which attributes it leaves open."""
    if rng.random() < TERSE_SHARE:
        return terse(scene, rng)
    return paraphrase(scene, rng), frozenset()


@torch.no_grad()
def evaluate_text(text: Encoders, probe: Probe, run: Run) -> dict[str, float]:
    """The share of attributes read right from paraphrases of held-out scenes, per tensor."""
    rng = random.Random(0)
    scenes = held_out_scenes(300)
    wanted = torch.tensor([targets(scene) for scene in scenes]).to(run.device)
    opinions = probe(*text([paraphrase(scene, rng) for scene in scenes]))
    shares = []
    for items, ground in opinions:
        chosen = torch.stack([logits.argmax(-1) for logits in split_kinds(items)], -1).flatten(1)
        guess = torch.cat([chosen, ground.argmax(-1, keepdim=True)], 1)
        shares.append((guess == wanted).float().mean().item())
    return {"hidden_accuracy": shares[0], "pooled_accuracy": shares[1]}
