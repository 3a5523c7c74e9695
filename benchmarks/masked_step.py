"""A step in which only masked tokens are computed, against the same step computed in full.

For masks of 0.02 to 1.0 of an image's tokens and batches of 1, 4 and 8, one torch thread: the
network as a denoiser runs it in full (a graph, where it has one), and as it runs it partly, with
the keys and values of the same step, recorded in half precision before. Masks are ellipses
somewhere in the image, another one for each image of a batch, so that no two rows of a batch have
the same tokens. All ways take turns in each round; a figure is the median, a ratio that of the
ratios within a round. What may be computed in either way is: above `FULL_FROM` of the tokens a
denoiser computes an image in full (`shared/models/contracts/network.py`), and so does this.

The network has the shape of FLUX with random weights: 1,024 image tokens of 768 channels and 128 of
a prompt, as in FLUX an eighth; 2 double and 4 single blocks. `--own` measures that of `--model`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import torch

from benchmarks.harness.flux_model import Shape, random_transformer
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from shared.models.contracts.network import FULL_FROM, Conditioning, MaskedNetwork, Mode, Partial
from shared.models.families.flux.traced import traced
from shared.models.families.flux.transformer import FluxTransformer

RATIOS: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.9, 1.0)
NAMES: Final = tuple(f"{ratio:g}" for ratio in RATIOS)
NEARLY_ALL: Final = 0.75
"""Ratios from which on `worst_ratio` is taken."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of the network and of the measurement; `side`: image tokens each way."""

    side: int
    tokens: int
    shape: Shape
    batches: tuple[int, ...]
    rounds: int


FULL: Final = Size(32, 128, Shape(12, 64, 2, 4), batches=(1, 4, 8), rounds=3)
QUICK: Final = Size(8, 8, Shape(2, 16, 1, 1), batches=(1, 2), rounds=1)
CONDITIONING: Final = {
    "in_channels": 64,
    "joint_attention_dim": 256,
    "pooled_projection_dim": 128,
    "guidance_embeds": True,
}
Call = tuple[torch.Tensor, torch.Tensor, Conditioning]


async def measure(options: Options) -> Results:
    torch.set_num_threads(1)
    size = QUICK if options.quick else FULL
    own = options.own.own
    network = FluxTransformer.load(options.model) if own else _random(size.shape)
    side, tokens = (8, 40) if own else (size.side, size.tokens)
    with torch.inference_mode():
        steps = {
            str(batch): _measured(network, network.example(batch, side, side, tokens), size.rounds)
            for batch in size.batches
        }
    return summary(steps) | {
        "parameters": sum(weight.numel() for weight in network.module.parameters()),
        "image_tokens": side**2,
        "prompt_tokens": tokens,
        "rounds": size.rounds,
    }


def _measured(network: FluxTransformer, call: Call, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by mask ratio; `full`: in full."""
    graph, records = traced(network), _recorded(network, call)
    assert isinstance(graph, MaskedNetwork)
    ways: dict[str, Callable[[], object]] = {"full": lambda: graph.predict(*call)}
    for name, ratio in zip(NAMES, RATIOS, strict=True):
        ways[name] = _way(graph, call, records, ratio)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number:  # the first one warms up
                found[name].append(time.perf_counter() - began)
        say(f"batch {len(call[0])}, round {number}/{rounds}")
    return found


def _way(
    graph: MaskedNetwork,
    call: Call,
    records: Sequence[dict[str, torch.Tensor]],
    ratio: float,
) -> Callable[[], object]:
    """To compute `ratio` of the tokens of each image."""
    side = call[0].shape[-1] // 2
    masks = [ellipse(side, ratio, seed) for seed in range(len(records))]
    partials = [Partial(mask, record) for mask, record in zip(masks, records, strict=True)]
    modes: list[Mode] = ["keys_values"] * graph.depth
    if ratio > FULL_FROM:
        return lambda: graph.predict(*call)
    return lambda: graph.predict_partly(*call, partials, modes)


def _recorded(network: FluxTransformer, call: Call) -> list[dict[str, torch.Tensor]]:
    records: list[dict[str, torch.Tensor]] = [{} for _ in call[0]]
    partials = [Partial(record=record) for record in records]
    modes: list[Mode] = ["full"] * network.depth
    network.predict_partly(*call, partials, modes)
    return records


def ellipse(side: int, ratio: float, seed: int) -> torch.Tensor:
    """The places (M,) of the `ratio` of side x side tokens that are nearest to a point by lot, in a
    measure by lot: at least one."""
    drawn = torch.Generator().manual_seed(seed)
    centre, axes = torch.rand(2, generator=drawn) * side, 0.5 + torch.rand(2, generator=drawn)
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1)
    distance = (((grid - centre) / axes) ** 2).sum(-1).flatten()
    return distance.argsort()[: max(1, round(ratio * side**2))].sort().values


def _random(shape: Shape) -> FluxTransformer:
    return FluxTransformer(random_transformer(shape, CONDITIONING))


def summary(steps: dict[str, dict[str, list[float]]]) -> Results:
    """`speedup_m02_b4`: how much faster a step of 4 images is with 0.2 of their tokens;
    `worst_ratio`: the longest step with nearly all of them, over the full one."""
    ratios = {
        batch: {
            name: median(own / full for own, full in zip(seconds, found["full"], strict=True))
            for name, seconds in found.items()
        }
        for batch, found in steps.items()
    }
    four = ratios.get("4", next(reversed(ratios.values())))
    nearly = [
        ratio
        for found in ratios.values()
        for name, ratio in found.items()
        if name != "full" and float(name) >= NEARLY_ALL
    ]
    return {
        "speedup_m02_b4": round(1.0 / four["0.2"], 3),
        "worst_ratio": round(max(nearly), 3),
        "of_full": {b: {n: round(r, 3) for n, r in found.items()} for b, found in ratios.items()},
        "full_ms": {b: round(1000 * median(found["full"]), 1) for b, found in steps.items()},
    }


def rows(report: Results) -> Cells:
    batches = list(report["of_full"])
    table = [["share of a full step, at a mask of", *(f"batch {b}" for b in batches)]]
    table += [[name, *(report["of_full"][b][name] for b in batches)] for name in NAMES]
    return [*table, ["a full step, ms", *(report["full_ms"][b] for b in batches)]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--own", action="store_true", help="the transformer of --model")


if __name__ == "__main__":
    run_program("masked_step", __doc__ or "", measure, rows, add_arguments)
