"""Workflows compiled to graphs of nodes (LegoDiffusion §4: a workflow is a DAG of model nodes)."""

from typing import Final, Literal

import msgspec

from shared.messages import JobSpec

NodeKind = Literal["encode", "hint", "denoise", "decode"]
KINDS_OF_MODELS: Final[tuple[NodeKind, ...]] = ("encode", "denoise", "decode")
"""Those that every model has a queue of; a ControlNet has one of hints."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work. `index` is the image it belongs to, or the control (0 for shared nodes)."""

    name: str
    kind: NodeKind
    model: str
    inputs: tuple[str, ...]
    """Names of the nodes whose outputs it reads."""
    index: int


Graph = dict[str, Node]


def text_to_image(spec: JobSpec) -> Graph:
    """One `encode` and a `hint-k` for each control, shared by n chains of `denoise-i` and
    `decode-i`."""
    nodes = [Node(name="encode", kind="encode", model=spec.model, inputs=(), index=0)]
    nodes += [
        Node(name=f"hint-{k}", kind="hint", model=control.model, inputs=(), index=k)
        for k, control in enumerate(spec.controls)
    ]
    shared = tuple(node.name for node in nodes)
    for index in range(spec.n):
        denoise, decode = f"denoise-{index}", f"decode-{index}"
        nodes.append(
            Node(name=denoise, kind="denoise", model=spec.model, inputs=shared, index=index)
        )
        nodes.append(
            Node(name=decode, kind="decode", model=spec.model, inputs=(denoise,), index=index)
        )
    return {node.name: node for node in nodes}
