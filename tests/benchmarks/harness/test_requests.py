"""What the programs ask for."""

from benchmarks.harness import requests
from shared.jobs.validate import validate
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue

CARD = ModelCard(
    name="m",
    source="m",
    pipeline="StableDiffusionXLPipeline",
    samplers=("euler", "ddim", "dpmpp_2m"),
    default_sampler="euler",
    default_steps=25,
    default_guidance=4.0,
    default_width=128,
    default_height=128,
    max_width=128,
    max_height=128,
    scale=8,
    size_multiple=8,
    interface="",
    embedded_guidance=False,
    masks=False,
    rounds_up=False,
)


def test_every_run_asks_for_the_same_under_new_job_ids() -> None:
    one, other = requests.mixed(5, CARD), requests.mixed(5, CARD)
    assert {r.job_id for r in one}.isdisjoint(r.job_id for r in other)
    assert [(r.prompt, r.steps, r.guidance, r.sampler, r.seed) for r in one] == [
        (r.prompt, r.steps, r.guidance, r.sampler, r.seed) for r in other
    ]


def test_twenty_mixed_requests_are_valid_and_cover_what_they_mix() -> None:
    catalogue = Catalogue(cards={CARD.name: CARD})
    specs = [validate(request, catalogue) for request in requests.mixed(20, CARD)]
    assert {spec.sampler for spec in specs} == set(CARD.samplers)
    assert {spec.guided for spec in specs} == {True, False}
    assert {spec.negative_prompt is None for spec in specs} == {True, False}
    assert min(s.steps for s in specs) < 10 < 25 < max(s.steps for s in specs)
    assert len({spec.prompt for spec in specs}) == 20
    assert len({spec.seed for spec in specs}) == 20


def test_again_is_the_same_request_under_another_id() -> None:
    request = requests.plain(1, 25)[0]
    repeated = requests.again(request)
    assert repeated.job_id != request.job_id
    assert (repeated.prompt, repeated.seed, repeated.steps) == (request.prompt, request.seed, 25)
    assert requests.again(request, 60).steps == 60
