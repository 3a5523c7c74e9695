"""Profiles as the LegoDiffusion authors published them, measured on an NVIDIA H800.

Their workflows: each model with its own three tenants, one without and two with a ControlNet. A
model's text encoders compute one after another, and are one component here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import msgspec

from loadgen.simulator.profiles.cost import Table, chained
from loadgen.simulator.profiles.profile import Component, Kind, Profile, Workflow
from loadgen.workload.trace import Arrival, parse_trace

NAME: Final = "h800"
DATA: Final = resources.files("loadgen.simulator") / "data"
SOURCE: Final = "https://github.com/mental2008/DiFlow-AE, measured on an NVIDIA H800"
TRACES: Final = ("1.0", "2.0", "4.0")
"""How many times the recorded requests are repeated."""
MEMORY: Final = 80_000_000_000
UNET_ENCODER: Final = 0.4
"""Share of a step that a UNet computes before it takes in what ControlNets answer. Transformers
take it in from the first block on."""


@dataclass(frozen=True, slots=True)
class _Model:
    denoise: str
    encoders: tuple[str, ...]
    decode: str
    controls: Mapping[str, str]
    steps: int
    guided: bool
    ahead: float = 0.0


_SD3_TEXT: Final = ("CLIP_L", "CLIP_G", "T5")
_FLUX_TEXT: Final = ("CLIP_Flux", "T5_Flux")
_FLUX_CONTROLS: Final = {"canny": "Flux1DevControlNetCanny", "depth": "Flux1DevControlNetDepth"}
MODELS: Final = {
    "sd3": _Model(
        "StableDiffusion3",
        _SD3_TEXT,
        "StableDiffusion3VAE",
        {"canny": "StableDiffusion3ControlNetCanny", "pose": "StableDiffusion3ControlNetPose"},
        28,
        guided=True,
    ),
    "sd3.5-large": _Model(
        "StableDiffusion35Large",
        _SD3_TEXT,
        "StableDiffusion35LargeVAE",
        {
            "canny": "StableDiffusion35LargeControlNetCanny",
            "depth": "StableDiffusion35LargeControlNetDepth",
        },
        28,
        guided=True,
    ),
    "flux-dev": _Model("Flux1Dev", _FLUX_TEXT, "Flux1VAE", _FLUX_CONTROLS, 28, guided=False),
    "flux-schnell": _Model("Flux1Schnell", _FLUX_TEXT, "Flux1VAE", _FLUX_CONTROLS, 4, guided=False),
    "sdxl": _Model(
        "StableDiffusionXL",
        ("CLIP_SDXL_1", "CLIP_SDXL_2"),
        "StableDiffusionXLVAE",
        {
            "canny": "StableDiffusionXLControlNetCanny",
            "depth": "StableDiffusionXLControlNetDepth",
        },
        50,
        guided=True,
        ahead=UNET_ENCODER,
    ),
}
SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (name,) for name in MODELS},
    "sd3-family": ("sd3", "sd3.5-large"),
    "flux-family": ("flux-dev", "flux-schnell"),
}
"""Models that are served together: the published settings, and SDXL."""
TENANTS: Final = ("A", "B", "C")
"""Of the traces; each has one workflow of each model."""


@cache
def profile() -> Profile:
    """All models and workflows."""
    published: Mapping[str, Any] = msgspec.json.decode((DATA / "h800_profiles.json").read_bytes())
    components: dict[str, Component] = {}
    workflows: dict[str, Workflow] = {}
    for name, model in MODELS.items():
        text = "+".join(model.encoders)
        components[text] = _component(published, "encode", model.encoders)
        components[model.denoise] = _component(published, "denoise", [model.denoise])
        components[model.decode] = _component(published, "decode", [model.decode])
        for control in model.controls.values():
            components[control] = _component(published, "controlnet", [control])
        for tenant, workflow in zip(TENANTS, workflows_of(name), strict=True):
            controls = tuple(model.controls.values())
            used = () if tenant == "A" else (controls[TENANTS.index(tenant) - 1],)
            workflows[workflow] = Workflow(
                encode=text,
                denoise=model.denoise,
                decode=model.decode,
                controls=used,
                steps=model.steps,
                guided=model.guided,
                ahead=model.ahead,
            )
    return Profile(
        name=NAME, source=SOURCE, components=components, workflows=workflows, memory=MEMORY
    )


def workflows_of(model: str) -> tuple[str, ...]:
    """The three workflows of a model, in the order of their tenants."""
    return model, *(f"{model}+{control}" for control in MODELS[model].controls)


def trace(repeated: str) -> tuple[Arrival, ...]:
    """A published trace (one of `TRACES`), without models."""
    text = (DATA / f"trace_rs{repeated}_t120.txt").read_text(encoding="utf-8")
    return parse_trace(text.split("\n"))


def served(arrivals: Sequence[Arrival], setting: str) -> tuple[Arrival, ...]:
    """`arrivals` as requests of a setting: each tenant asks for its workflow, of the setting's
    models in turn."""
    models = SETTINGS[setting]
    turns = dict.fromkeys(TENANTS, 0)
    found = []
    for arrival in arrivals:
        place = TENANTS.index(arrival.tenant)
        model = models[turns[arrival.tenant] % len(models)]
        turns[arrival.tenant] += 1
        changes = {**arrival.changes, "model": workflows_of(model)[place]}
        found.append(Arrival(at=arrival.at, tenant=arrival.tenant, changes=changes))
    return tuple(found)


def of_setting(setting: str) -> Profile:
    """What a cluster of one setting has to serve."""
    whole = profile()
    names = [name for model in SETTINGS[setting] for name in workflows_of(model)]
    workflows = {name: whole.workflows[name] for name in names}
    used = {part for workflow in workflows.values() for part in workflow.components}
    components = {name: one for name, one in whole.components.items() if name in used}
    return msgspec.structs.replace(
        whole, name=f"{NAME} {setting}", workflows=workflows, components=components
    )


def _component(published: Mapping[str, Any], kind: Kind, names: Sequence[str]) -> Component:
    return Component(
        kind=kind,
        cost=chained(tuple(_table(published[name]) for name in names)),
        bytes=sum(published[name]["device_bytes"] for name in names),
        load_seconds=sum(published[name]["host_to_device_s"] for name in names),
    )


def _table(published: Mapping[str, Any]) -> Table:
    """Of several figures for one batch size the last one counts: those before it are of less than
    the whole component."""
    last = {row["batch_size"]: row["execution_time"] for row in published["execution"]}
    return Table(points=tuple((float(size), last[size]) for size in sorted(last)))
