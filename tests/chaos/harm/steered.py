"""Jobs that are steered by ControlNets, and a fleet for them: no stand-in would ask any."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocket.captions import parse
from pocket.hints import HINTS
from pocket.render import lay_out, to_bytes
from shared.messages import ControlChoice, GenerationRequest
from shared.shipped import DEFAULT_CONTROLS
from tests.chaos.fleet.fleets import ChaosFleet, FleetPlan, chaos_fleet
from tests.chaos.load import requests

SERVICE: Final = "controlnet"
REPLICAS: Final = {"planner": 1, "prompt_encoder": 1, SERVICE: 2, "denoiser": 1, "vae": 1}


@asynccontextmanager
async def steered_fleet(plan: FleetPlan) -> AsyncIterator[ChaosFleet]:
    settings = {**plan.settings, "DARKROOM_CONTROLS": DEFAULT_CONTROLS}
    async with chaos_fleet(
        replace(plan, stand_ins=False, replicas=REPLICAS, settings=settings)
    ) as up:
        yield up


def steered_requests() -> list[GenerationRequest]:
    """Two of three with controls: one, and two at a time."""
    kinds = ((), ("edges",), ("edges", "blocks"))
    return [
        msgspec.structs.replace(wanted, controls=_controls(wanted.prompt, kinds[number % 3]))
        for number, wanted in enumerate(requests())
    ]


def _controls(prompt: str, kinds: tuple[str, ...]) -> tuple[ControlChoice, ...]:
    layout = lay_out(parse(prompt), random.Random(1))
    return tuple(ControlChoice(model=kind, image=_png(HINTS[kind](layout))) for kind in kinds)


def _png(picture: NDArray[np.float32]) -> bytes:
    file = BytesIO()
    Image.fromarray(to_bytes(picture * 255)).save(file, "PNG")
    return file.getvalue()
