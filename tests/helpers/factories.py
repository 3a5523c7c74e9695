"""Small valid things that many tests start from."""

from typing import Any

import msgspec

from shared.jobs.validate import validate
from shared.messages import ControlChoice, GenerationRequest, JobSpec
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue, ControlCard


def card(**changes: Any) -> ModelCard:
    plain = ModelCard(
        name="pocket-sdxl",
        source="nowhere",
        pipeline="StableDiffusionXLPipeline",
        samplers=("euler", "ddim", "dpmpp_2m"),
        default_sampler="euler",
        default_steps=25,
        default_guidance=5.0,
        default_width=128,
        default_height=128,
        max_width=256,
        max_height=256,
        scale=8,
        size_multiple=8,
        interface="",
        embedded_guidance=False,
        masks=False,
        rounds_up=False,
    )
    return msgspec.structs.replace(plain, **changes)


def catalogue(*cards: ModelCard) -> Catalogue:
    """With the ControlNet `edges`, which fits the plain card, and `other`, which does not."""
    controls = [
        ControlCard(name="edges", source="nowhere", interface="", scale=8),
        ControlCard(name="other", source="nowhere", interface="another", scale=8),
    ]
    return Catalogue(
        cards={c.name: c for c in cards or (card(),)}, controls={c.name: c for c in controls}
    )


def control(**changes: Any) -> ControlChoice:
    plain = ControlChoice(model="edges", image=b"a picture")
    return msgspec.structs.replace(plain, **changes)


def request(**changes: Any) -> GenerationRequest:
    plain = GenerationRequest(job_id="job-1", prompt="a large red circle left on white")
    return msgspec.structs.replace(plain, **changes)


def spec(**changes: Any) -> JobSpec:
    return validate(request(**changes), catalogue())
