"""A UNet as a graph; see `shared/models/contracts/traced.py`."""

import torch

from shared.host.torch_graph import Graph, graph_of
from shared.models.contracts.network import Conditioning, Control, Network
from shared.models.contracts.traced import TRIALS, Traced, trusted
from shared.models.families.unet.unet import Unet, with_residuals
from shared.models.lowrank.bank import Bank


class TracedUnet(Traced[Unet]):
    """Implements `Network`: `network`, but by the graphs of its halves for latents that its levels
    can halve, if there is no bank."""

    def __init__(self, network: Unet, encode: Graph, decode: Graph) -> None:
        super().__init__(network)
        self._encode, self._decode = encode, decode

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        height, width = x.shape[-2:]
        halved = height % self._network.smallest == width % self._network.smallest == 0
        if halved and bank is None:
            given = self._network.inputs.tensors(conditioning)
            halfway = self._encode(x, t, *given)
            return self._decode(given[0], *with_residuals(halfway, control))  # type: ignore[no-any-return]
        return self._network.predict(x, t, conditioning, bank, control)


def traced(network: Unet) -> Network:
    """`network` as a graph, where that can be trusted."""
    return trusted(network, lambda: TracedUnet(network, *_graphs(network)))


@torch.inference_mode()
def _graphs(network: Unet) -> tuple[Graph, Graph]:
    """Of its encoder half, and of its decoder half."""
    x, t, conditioning = network.example(*TRIALS[0])
    given = network.inputs.tensors(conditioning)
    halfway = network.encode(x, t, *given)
    return (
        graph_of(network.encode, (x, t, *given)),
        graph_of(network.decode, (given[0], *halfway)),
    )
