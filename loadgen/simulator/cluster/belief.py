"""What a denoiser believes of its steps once it has taken many: the product's own cost model, which
was shown a step of every size."""

from functools import cache

from loadgen.simulator.profiles.profile import Component
from shared.policy.cost_model import FIRST, MEMORY, CostModel
from shared.policy.step_work import StepWork


@cache
def learnt(component: Component, positions: int, forwards: int) -> CostModel:
    """`positions`: of the latents of one forward; `forwards`: of one picture in a step."""
    model = CostModel()
    for _ in range(FIRST + MEMORY):
        for pictures in range(1, component.max_batch + 1):
            images = forwards * pictures
            model = model.observe(StepWork.full(images, positions), component.cost.seconds(images))
    return model
