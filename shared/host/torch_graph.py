"""Functions of tensors as graphs, which run without the interpreter.

TorchScript is no longer developed, and is used because nothing else does this without a compiler on
the host (docs/adr/0014). Everything that knows of it is in this file.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch

Graph = Callable[..., Any]


@torch.inference_mode()
def graph_of(function: Graph, example: tuple[torch.Tensor, ...]) -> Graph:
    """`function` as it runs for `example`; branches on sizes stay as they were taken then. Raises
    whatever the function or the tracer does."""
    with warnings.catch_warnings():
        # That TorchScript is deprecated, and that sizes may have been taken for constants.
        warnings.simplefilter("ignore")
        return torch.jit.trace(  # type: ignore[no-untyped-call,no-any-return]
            function, example, check_trace=False
        )
