"""How SDXL's networks take their conditioning (arXiv 2307.01952 §2.2)."""

from collections.abc import Mapping
from typing import Any

import torch

from shared.models.contracts.network import Conditioning
from shared.models.families.sdxl.options import SIZES
from shared.models.families.unet.inputs import PROMPT, CrossAttention, Draw


class TextTime(CrossAttention):
    """The pooled prompt and the sizes are embedded with the time: `addition_embed_type`
    text_time."""

    names = (PROMPT, "pooled")
    sizes = SIZES

    def tensors(self, conditioning: Conditioning) -> tuple[torch.Tensor, ...]:
        return (*super().tensors(conditioning), conditioning.tensors["pooled"])

    def added(self, scalars: torch.Tensor, *others: torch.Tensor) -> Mapping[str, torch.Tensor]:
        [pooled] = others
        return {"text_embeds": pooled, "time_ids": scalars[:, :SIZES]}

    def example(
        self, config: Any, images: int, tokens: int, guided: bool, draw: Draw
    ) -> Conditioning:
        sizes = SIZES * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - sizes
        conditioning = super().example(config, images, tokens, guided, draw)
        return conditioning._replace(
            tensors={**conditioning.tensors, "pooled": draw(images, pooled)}
        )
