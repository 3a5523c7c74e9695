"""A pipeline that is as fast as it gets before anybody asks it for anything."""

import os
from collections.abc import Sequence
from typing import Final

from benchmarks.baselines.batching import Policy
from benchmarks.baselines.pipeline import LAYOUTS, Pipeline, Setup
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, JobSpec
from shared.models.catalogue import Catalogue

WARM_STEPS: Final = 4
TRIALS: Final = 3
"""Of each way to use the machine."""


def every_setup() -> tuple[Setup, ...]:
    """Each number of threads up to the cores this process may use, with each layout."""
    threads = range(1, len(os.sched_getaffinity(0)) + 1)
    return tuple(Setup(count, layout) for count in threads for layout in LAYOUTS)


def warm_pipeline(
    model: str,
    setups: Sequence[Setup],
    policy: Policy,
    catalogue: Catalogue,
    graph: bool = True,
) -> Pipeline:
    """With the fastest of `setups`. It has drawn every size of batch, with guidance and without:
    the first time kernels are chosen and buffers allocated."""
    pipeline = Pipeline(model, setups[0], graph)
    most = policy.max_batch
    guided = _sample(catalogue, 2.0)
    if len(setups) > 1:
        samples = [[guided], [guided] * most]
        pipeline.choose(setups, samples[: min(2, most)], TRIALS)
    for spec in (guided, _sample(catalogue, 1.0)):
        for batch in range(1, most + 1):
            pipeline.draw([spec] * batch)
    return pipeline


def _sample(catalogue: Catalogue, guidance: float) -> JobSpec:
    request = GenerationRequest(
        job_id="warm", prompt="warm", steps=WARM_STEPS, guidance=guidance, seed=0
    )
    return validate(request, catalogue)
