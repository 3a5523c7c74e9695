"""Workflows compiled to graphs of nodes (LegoDiffusion §4: a workflow is a DAG of model nodes)."""

from typing import Literal

import msgspec

from shared.messages import JobSpec

NodeKind = Literal["encode", "denoise", "decode"]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work. `index` is the image it belongs to (0 for shared nodes)."""

    name: str
    kind: NodeKind
    model: str
    inputs: tuple[str, ...]
    """Names of the nodes whose outputs it reads."""
    index: int


Graph = dict[str, Node]


def text_to_image(spec: JobSpec) -> Graph:
    """One `encode`, shared by n chains of `denoise-i` and `decode-i`."""
    nodes = [Node(name="encode", kind="encode", model=spec.model, inputs=(), index=0)]
    for index in range(spec.n):
        denoise, decode = f"denoise-{index}", f"decode-{index}"
        nodes.append(
            Node(name=denoise, kind="denoise", model=spec.model, inputs=("encode",), index=index)
        )
        nodes.append(
            Node(name=decode, kind="decode", model=spec.model, inputs=(denoise,), index=index)
        )
    return {node.name: node for node in nodes}
