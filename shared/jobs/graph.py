"""Workflows compiled to graphs of nodes (LegoDiffusion §4: a workflow is a DAG of model nodes)."""

from typing import Final, cast

import msgspec

from shared.messages import JobSpec
from shared.messages.nodes import (
    Beginning,
    Control,
    Decode,
    Denoise,
    Encode,
    EncodeImage,
    Hint,
    NodeParameters,
)
from shared.services import NodeKind

NEGATIVE: Final = "negative_"
"""Before the name of an output that is the negative prompt's."""
TEXTS: Final = "texts"
IMAGE: Final = "image"
LATENTS: Final = "latents"
ORIGINAL: Final = "original"
"""Ports, besides those of hints."""
HINT: Final = "hint"
"""The output of a node of this kind."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work on one component. `index` is the image it belongs to, or the control (0 for
    shared nodes)."""

    name: str
    kind: NodeKind
    model: str
    parameters: NodeParameters | None = None
    """None: the node is of a version whose nodes had none of their own."""
    ports: dict[str, str] = {}
    """What it reads: the node whose outputs are at each port."""
    index: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The nodes whose outputs it reads."""
        return tuple(dict.fromkeys(self.ports.values()))


def node(
    name: str, model: str, parameters: NodeParameters, ports: dict[str, str], index: int = 0
) -> Node:
    """One of the kind whose parameters these are."""
    kind = cast(NodeKind, parameters.__struct_config__.tag)
    return Node(name=name, kind=kind, model=model, parameters=parameters, ports=ports, index=index)


Graph = dict[str, Node]


def workflow(spec: JobSpec) -> Graph:
    """What `spec` asks for: one `encode`, one `encode_image` if it begins from an image, and a
    `hint-k` for each control, shared by n chains of `denoise-i` and `decode-i`. What a mask keeps
    of the image is put back by `decode-i`."""
    nodes = [_encode(spec), *_encode_image(spec), *_hints(spec)]
    for index in range(spec.n):
        nodes += [_denoise(spec, index), _decode(spec, index)]
    return {one.name: one for one in nodes}


def _encode(spec: JobSpec) -> Node:
    parameters = Encode(
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        guided=spec.guided,
        loras=spec.loras,
    )
    return node("encode", spec.model, parameters, {})


def _encode_image(spec: JobSpec) -> list[Node]:
    if spec.edit is None:
        return []
    return [node("encode_image", spec.model, image_parameters(spec), {})]


def image_parameters(spec: JobSpec) -> EncodeImage:
    """How the image that `spec` begins from is read."""
    mask = "none" if spec.edit is None else spec.edit.mask
    return EncodeImage(width=spec.width, height=spec.height, mask=mask)


def _hints(spec: JobSpec) -> list[Node]:
    return [
        node(_hint(k), control.model, Hint(image=k, width=spec.width, height=spec.height), {}, k)
        for k, control in enumerate(spec.controls)
    ]


def _hint(number: int) -> str:
    return f"hint-{number}"


def _denoise(spec: JobSpec, index: int) -> Node:
    ports = {TEXTS: "encode"} | {_hint(k): _hint(k) for k, _ in enumerate(spec.controls)}
    beginning = None
    if spec.edit is not None:
        ports[IMAGE] = "encode_image"
        beginning = Beginning(
            strength=spec.edit.strength, masked=spec.edit.masked, mask_mode=spec.edit.mask_mode
        )
    parameters = Denoise(
        width=spec.width,
        height=spec.height,
        steps=spec.steps,
        sampler=spec.sampler,
        seed=spec.seed + index,
        guidance=spec.guidance,
        embedded_guidance=spec.embedded_guidance,
        loras=spec.loras,
        lora_late_steps=spec.lora_late_steps,
        controls=tuple(
            Control(
                model=control.model,
                hint=_hint(k),
                scale=control.scale,
                start=control.start,
                end=control.end,
                guess_mode=control.guess_mode,
            )
            for k, control in enumerate(spec.controls)
        ),
        control_lag=spec.control_lag,
        beginning=beginning,
    )
    return node(f"denoise-{index}", spec.model, parameters, ports, index)


def _decode(spec: JobSpec, index: int) -> Node:
    pasted = spec.edit is not None and spec.edit.masked
    ports = {LATENTS: f"denoise-{index}"} | ({ORIGINAL: "encode_image"} if pasted else {})
    parameters = Decode(
        output=index,
        width=spec.width,
        height=spec.height,
        seed=spec.seed + index,
        output_format=spec.output_format,
        output_compression=spec.output_compression,
        pasted=pasted,
    )
    return node(f"decode-{index}", spec.model, parameters, ports, index)
