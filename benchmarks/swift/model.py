"""What an image takes, from its measured parts (SwiftDiffusion, arXiv 2407.02031 §3). Pure.

A baseline does one thing after another: `T = enc + L·(load + patch) + (T_B + C·T_C)·S + vae`. Here
a step is the longer of the UNet's first half and the ControlNets' answers, then its second half;
and LoRAs are read while steps are taken. A device is a core or a GPU. Interference between devices
is not in the model: what it is off by in a measured setting is, for the most part, that.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """What an image consists of; `late`: steps that it may take without its LoRAs."""

    controls: int
    loras: int
    steps: int
    late: int = 0

    @property
    def name(self) -> str:
        return f"{self.controls}C{self.loras}L"


@dataclass(frozen=True, slots=True)
class Devices:
    """`denoisers`: 2 share the halves of guidance. `controls`: for all ControlNets. `reads`:
    LoRAs are read on another device than the denoiser computes on."""

    denoisers: int = 1
    controls: int = 1
    reads: bool = False

    @property
    def count(self) -> int:
        return self.denoisers + self.controls


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds on a fleet's devices, all measured with one of each."""

    base: float
    """T_B: a step of the UNet, both halves of guidance,"""
    half: float
    """and one of them."""
    until_needed: float
    """Share of a step of the UNet that comes before answers are needed."""
    control: float
    """T_C: a step of a ControlNet."""
    hop: float
    """The way to another device and back."""
    load: float
    """Of one LoRA: read and converted,"""
    patch: float
    """put into the weights, and taken out again."""
    enc: float
    vae: float
    rest: float
    """Of a job, between its nodes."""


@dataclass(frozen=True, slots=True)
class BaselineParts:
    """Seconds of diffusers' pipeline on one device."""

    base: float
    control: float
    lora_step: float
    """What a LoRA adds to each step, if it is not fused."""
    adapt: float
    """`load + patch` of one LoRA."""
    rest: float
    """`enc + vae`."""


def step_seconds(parts: Parts, controls: int, devices: Devices) -> float:
    """Of a guided image that is alone. ControlNets that share a device all answer at the end."""
    network = parts.base if devices.denoisers == 1 else parts.half
    first, second = parts.until_needed * network, (1.0 - parts.until_needed) * network
    exchanged = 0.0 if devices.denoisers == 1 else parts.hop
    if not controls:
        return network + exchanged
    answers = math.ceil(controls / devices.controls) * parts.control + parts.hop
    return max(first, answers) + second + exchanged


def fleet_seconds(parts: Parts, asked: Asked, devices: Devices) -> float:
    """Until the image is there."""
    step = step_seconds(parts, asked.controls, devices)
    load = asked.loras * parts.load
    held_up = max(0.0, load - asked.late * step) if devices.reads else load
    around = parts.enc + parts.vae + parts.rest
    return around + asked.steps * step + held_up + asked.loras * parts.patch


def baseline_seconds(parts: BaselineParts, asked: Asked) -> float:
    """Until the image is there."""
    step = parts.base + asked.controls * parts.control + asked.loras * parts.lora_step
    return parts.rest + asked.steps * step + asked.loras * parts.adapt
