"""What is asked for: the same requests in every run. Pure but for job ids, which are always new."""

import random
from typing import Final

import msgspec

from pocket.captions import sample_captions
from shared.client import new_job_id
from shared.messages import GenerationRequest
from shared.models.cards import ModelCard

GUIDANCES: Final = (1.0, 2.5, 4.0, 5.0, 7.5)
"""1 is no guidance: one forward per step instead of two."""
NEGATIVES: Final = (None, None, "a small grey ring left on black", "")
FEWEST_STEPS: Final = 5
MOST_STEPS: Final = 30


def plain(count: int, steps: int | None, seed: int = 0) -> list[GenerationRequest]:
    """Different prompts and seeds, everything else as the model has it."""
    return [
        GenerationRequest(job_id=new_job_id(), prompt=prompt, steps=steps, seed=1000 + number)
        for number, prompt in enumerate(sample_captions(count, seed))
    ]


def mixed(
    count: int, card: ModelCard, seed: int = 0, most_steps: int = MOST_STEPS
) -> list[GenerationRequest]:
    """Every sampler that `card` allows in turn; steps, guidance and negative prompts by lot."""
    rng = random.Random(seed)
    return [
        GenerationRequest(
            job_id=new_job_id(),
            prompt=prompt,
            negative_prompt=_negative(rng, card),
            steps=rng.randint(FEWEST_STEPS, most_steps),
            guidance=rng.choice(GUIDANCES),
            sampler=card.samplers[number % len(card.samplers)],
            seed=rng.randrange(1 << 31),
        )
        for number, prompt in enumerate(sample_captions(count, seed))
    ]


def _negative(rng: random.Random, card: ModelCard) -> str | None:
    found = rng.choice(NEGATIVES)
    return None if card.embedded_guidance else found


def again(request: GenerationRequest, steps: int | None = None) -> GenerationRequest:
    """The same under a new job id; with other `steps` if they are given."""
    wanted = request.steps if steps is None else steps
    return msgspec.structs.replace(request, job_id=new_job_id(), steps=wanted)
