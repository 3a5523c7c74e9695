"""What the masked blocks of FLUX are made of, by the interpreter and as graphs."""

import pytest
import torch

from shared.models.contracts.network import MaskedNetwork, Mode, Partial
from shared.models.contracts.traced import graph_if_same
from shared.models.families.flux.pieces import normed, pieces
from shared.models.families.flux.traced import TOKENS, TracedTransformer, traced
from shared.models.families.flux.transformer import FluxTransformer
from tests.families.test_flux_masked import MODES, PLACES, call, network, recorded
from tests.families.test_flux_transformer import example
from tests.helpers.flux import make_transformer


@pytest.mark.parametrize("modes", MODES)
@torch.inference_mode()
def test_graphs_give_the_same_bits_as_the_interpreter(modes: tuple[Mode, ...]) -> None:
    net = network()
    graphs = traced(net)
    assert isinstance(graphs, TracedTransformer)
    assert isinstance(graphs, MaskedNetwork)
    partials = [Partial(p, r) for p, r in zip(PLACES, recorded(net), strict=True)]
    found = graphs.predict_partly(*example(True), partials, modes)
    assert torch.equal(found, call(net, partials, modes))


@torch.inference_mode()
def test_every_piece_is_run_as_a_graph() -> None:
    torch.set_num_threads(1)
    made = []

    def run(function, example):  # type: ignore[no-untyped-def]
        made.append(graph_if_same(function, [example(tokens) for tokens in TOKENS]))
        assert made[-1] is not function
        return made[-1]

    pieces(FluxTransformer(make_transformer()).module, run)
    assert len(made) == 2 * 6 + 2 * 3 + 1


@torch.inference_mode()
def test_a_function_that_takes_other_branches_is_run_as_it_is() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x * len(x)  # a constant, in a graph

    assert graph_if_same(function, [(torch.ones(2),), (torch.ones(3),)]) is function


@torch.inference_mode()
def test_a_function_that_cannot_be_traced_is_run_as_it_is() -> None:
    def function(x: torch.Tensor) -> dict[int, torch.Tensor]:
        return {1: x}

    assert graph_if_same(function, [(torch.ones(2),)]) is function


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_heads_are_normed_as_by_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = torch.nn.RMSNorm(16, eps=1e-6).to(dtype)
    norm.weight.copy_(torch.randn(16))
    x = torch.randn(5, 3, 16, dtype=dtype)
    torch.testing.assert_close(normed(norm, x), norm(x))
