"""FLUX's text side: a small T5 for hidden states, and pocket-sdxl's second CLIP, pooled."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from pocket.paint import MODEL
from pocket.train.common.probe import Probe
from pocket.train.common.run import Run
from pocket.train.flux.t5_tokenizer import MAX_SEQUENCE_LENGTH, write_t5_tokenizer
from pocket.train.sdxl.text import teach

WIDTH, LAYERS, HEADS = 128, 4, 4
STEPS = 300
_SLOPES = ((0.0, 0.0), (1.0, 4.0), (4.0, 1.0), (0.5, 0.5))  # of each head, backwards and forwards


@dataclass(slots=True)
class FluxText:
    """The two towers and their tokenizers. Only the T5 is trained here."""

    tokenizer: CLIPTokenizer
    clip: CLIPTextModel
    tokenizer_2: T5TokenizerFast
    t5: T5EncoderModel

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states (n, MAX_SEQUENCE_LENGTH, 128) and pooled (n, 128), as FluxPipeline's.

        Neither is masked: padding takes part, here and in the transformer.
        """
        ids = _tokens(self.tokenizer, captions, self.tokenizer.model_max_length)
        with torch.no_grad():
            pooled = self.clip(ids.to(self.clip.device)).pooler_output
        ids = _tokens(self.tokenizer_2, captions, MAX_SEQUENCE_LENGTH)
        return self.t5(ids.to(self.t5.device))[0], pooled

    def modules(self) -> nn.ModuleList:
        """What is trained."""
        return nn.ModuleList([self.t5])


def _tokens(tokenizer: CLIPTokenizer | T5TokenizerFast, captions: list[str], length: int) -> Tensor:
    found = tokenizer(
        captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = found.input_ids
    return ids


def build_flux_text() -> FluxText:
    """An untrained T5 beside the CLIP that is shipped with pocket-sdxl, which is frozen.

    That CLIP loses its projection, for FLUX takes the pooled state from before it. Nothing is
    lost: the projection is square, and linear.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer_2 = write_t5_tokenizer(Path(folder))
    clip = CLIPTextModel.from_pretrained(MODEL / "text_encoder_2", dtype=torch.float32)
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer_2),
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=2 * WIDTH,
            num_layers=LAYERS,
            num_heads=HEADS,
            feed_forward_proj="gated-gelu",  # as in T5 v1.1, which FLUX has
            dropout_rate=0.0,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=MAX_SEQUENCE_LENGTH,
        )
    )
    _prefer_neighbours(t5)
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer_2")
    return FluxText(tokenizer, clip.eval().requires_grad_(False), tokenizer_2, t5)


@torch.no_grad()
def _prefer_neighbours(t5: T5EncoderModel) -> None:
    """Let attention fall with the distance, for each head at its own slope.

    A T5 knows the order of words from these biases alone. They start near zero, and Adam moves a
    number by its rate at most: a whole short training would hardly make them felt.
    """
    bias = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    distance = torch.arange(len(bias) // 2)[:, None]  # buckets: backwards, then forwards
    slopes = torch.tensor(_SLOPES)
    bias.copy_(-torch.cat([distance * slopes[:, 0], distance * slopes[:, 1]]).clamp(max=8.0))


def train_flux_text(run: Run) -> FluxText:
    """Train, or resume, or just load what is finished."""
    torch.manual_seed(run.seed)
    text = build_flux_text()
    text.clip.to(run.device)
    teach(run, "flux-text", text, Probe(WIDTH, WIDTH), STEPS)
    _learn_capitals(text)
    return text


@torch.no_grad()
def _learn_capitals(text: FluxText) -> None:
    """Give pieces with capitals the meaning of those without, which are all that captions have."""
    vectors, ids = text.t5.shared.weight, text.tokenizer_2.get_vocab()
    for piece, n in ids.items():
        vectors[n] = vectors[ids.get(piece.lower(), n)]
