"""The parameters of nodes: for each kind a struct with all that a service needs to run one, beside
the outputs of other nodes that its ports name (see `shared/jobs/graph.py`)."""

import msgspec

from shared.messages.requests import ImageFormat, LoraChoice, MaskSource


class Encode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="encode"):
    """A prompt, and what its job steers away from if it is `guided`, to their conditioning."""

    prompt: str
    negative_prompt: str | None = None
    """None: what the model's family takes for none."""
    guided: bool = False
    loras: tuple[LoraChoice, ...] = ()


class EncodeImage(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="encode_image"
):
    """The job's input `image`, brought to `width` x `height` pixels, to latents."""

    width: int
    height: int
    mask: MaskSource = "none"
    """Where the mask is, if there is one: the job's input `mask`, or the image's own."""

    @property
    def masked(self) -> bool:
        return self.mask != "none"


class Hint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="hint"):
    """The job's input of that number, brought to `width` x `height` pixels, as a ControlNet sees
    it."""

    image: int
    width: int
    height: int


class Control(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one ControlNet adds to the steps of a row, from the embedded image at port `hint`."""

    model: str
    hint: str
    scale: float
    start: float
    end: float
    guess_mode: bool = False


class Beginning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That a row begins from the latents at port `image`, with so much of its steps left to take:
    above 0, up to 1. `masked`: only what the mask shows is drawn anew."""

    strength: float
    masked: bool = False
    mask_mode: str = "exact"


class Denoise(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="denoise"):
    """From noise, or from an image, to final latents. Seeds are those of diffusers: `seed` of this
    very image."""

    width: int
    height: int
    steps: int
    sampler: str
    seed: int
    guidance: float
    embedded_guidance: bool = False
    """Guidance is one of the network's scalars, and no second forward."""
    loras: tuple[LoraChoice, ...] = ()
    lora_late_steps: int = 0
    controls: tuple[Control, ...] = ()
    control_lag: int = 0
    beginning: Beginning | None = None
    """None: from noise alone."""
    start: float = 0.0
    """The part of the schedule that is taken, from this share of the noise levels,"""
    end: float = 1.0
    """to this one: a base model's row ends where its refiner's starts. One that starts later than
    at 0 begins from the latents at port `image` as they are, whatever its beginning's strength."""

    @property
    def guided(self) -> bool:
        """Whether each step needs a second, unconditional forward."""
        return self.guidance > 1.0 and not self.embedded_guidance


class Decode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="decode"):
    """Latents to the image that is the job's result of number `output`."""

    output: int
    width: int
    height: int
    seed: int
    output_format: ImageFormat
    output_compression: int
    pasted: bool = False
    """What a mask keeps of the image at port `original` is put back."""


NodeParameters = Encode | EncodeImage | Hint | Denoise | Decode
