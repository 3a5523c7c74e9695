"""Workflows compiled to graphs of nodes (LegoDiffusion §4: a workflow is a DAG of model nodes)."""

from typing import Final

import msgspec

from shared.messages import JobSpec
from shared.services import NodeKind

NEGATIVE: Final = "negative_"
"""Before the name of an output that is the negative prompt's."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work. `index` is the image it belongs to, or the control (0 for shared nodes)."""

    name: str
    kind: NodeKind
    model: str
    inputs: tuple[str, ...]
    """Names of the nodes whose outputs it reads."""
    index: int


Graph = dict[str, Node]


def workflow(spec: JobSpec) -> Graph:
    """The graph of the workflow that `spec` asks for."""
    if spec.edit is None:
        return text_to_image(spec)
    return edit(spec) if spec.edit.masked else image_to_image(spec)


def text_to_image(spec: JobSpec) -> Graph:
    """One `encode` and a `hint-k` for each control, shared by n chains of `denoise-i` and
    `decode-i`."""
    return _chains(spec, [])


def image_to_image(spec: JobSpec) -> Graph:
    """As `text_to_image`, but the chains also begin from what one `encode_image` made of the
    image."""
    return _chains(spec, [_encode_image(spec)])


def edit(spec: JobSpec) -> Graph:
    """As `image_to_image`, but what the mask keeps of the image is put back by `decode-i`."""
    return _chains(spec, [_encode_image(spec)], kept=("encode_image",))


def _encode_image(spec: JobSpec) -> Node:
    return Node(name="encode_image", kind="encode_image", model=spec.model, inputs=(), index=0)


def _chains(spec: JobSpec, beginnings: list[Node], kept: tuple[str, ...] = ()) -> Graph:
    """`kept`: nodes whose outputs are wanted for decoding too."""
    nodes = [Node(name="encode", kind="encode", model=spec.model, inputs=(), index=0)]
    nodes += beginnings
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
        inputs = (denoise, *kept)
        nodes.append(Node(name=decode, kind="decode", model=spec.model, inputs=inputs, index=index))
    return {node.name: node for node in nodes}
