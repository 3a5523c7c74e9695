from collections import Counter

import msgspec
import pytest

from loadgen.outcomes.outcome import RequestTemplate
from loadgen.workload.arrivals import Constant
from loadgen.workload.trace import parse_trace
from loadgen.workload.workload import Entry, Workload, duration, one_of_each, requests, schedule

MIXED = Workload(
    arrivals=Constant(rate=100),
    seconds=20,
    mix=(
        Entry(name="short", weight=3, request=RequestTemplate(steps=10)),
        Entry(name="long", request=RequestTemplate(steps=40, seed=7), masks="inpainting"),
    ),
    tenants={"ann": 1.0, "bob": 4.0},
)


def test_a_schedule_is_a_function_of_the_workload_and_its_seed() -> None:
    assert schedule(MIXED) == schedule(MIXED)
    other = msgspec.structs.replace(MIXED, seed=1)
    assert schedule(MIXED) != schedule(other)


def test_shots_are_numbered_in_the_order_of_their_times() -> None:
    shots = schedule(MIXED)
    assert [shot.number for shot in shots] == list(range(2000))
    assert [shot.at for shot in shots] == sorted(shot.at for shot in shots)


def test_templates_and_tenants_come_as_often_as_their_weights_say() -> None:
    shots = schedule(MIXED)
    templates, tenants = Counter(s.template for s in shots), Counter(s.tenant for s in shots)
    assert templates["short"] / len(shots) == pytest.approx(0.75, abs=0.03)
    assert tenants["bob"] / len(shots) == pytest.approx(0.8, abs=0.03)
    assert {s.request.steps for s in shots if s.template == "short"} == {10}


def test_a_request_without_a_seed_gets_its_own_and_a_given_one_is_kept() -> None:
    shots = schedule(MIXED)
    short = [shot.request.seed for shot in shots if shot.template == "short"]
    assert None not in short
    assert len(set(short)) > 0.99 * len(short)
    assert {shot.request.seed for shot in shots if shot.template == "long"} == {7}


def test_masks_are_drawn_for_the_entry_that_has_a_use() -> None:
    by_template: dict[str, set[float | None]] = {"short": set(), "long": set()}
    for shot in schedule(MIXED):
        by_template[shot.template].add(shot.request.mask_ratio)
    assert by_template["short"] == {None}
    assert len(by_template["long"]) > 100


def test_a_mask_use_more_leaves_all_other_requests_as_they_were() -> None:
    short, long = MIXED.mix
    bare = msgspec.structs.replace(MIXED, mix=(short, msgspec.structs.replace(long, masks=None)))
    for with_masks, without in zip(schedule(MIXED), schedule(bare), strict=True):
        assert msgspec.structs.replace(with_masks.request, mask_ratio=None) == without.request


def test_a_trace_says_when_and_who_and_the_mix_the_rest() -> None:
    lines = ['{"time": 3, "tenant": "eve", "steps": 5, "size": "64x32"}', '{"time": 1}']
    workload = msgspec.structs.replace(MIXED, trace=parse_trace(lines))
    first, last = schedule(workload)
    assert (first.at, last.at, last.tenant) == (1.0, 3.0, "eve")
    assert (last.request.steps, last.request.width, last.request.height) == (5, 64, 32)
    assert first.template in ("short", "long")
    assert last.template.endswith(": 64x32, 5 steps")  # another amount of work
    assert duration(workload) == 3.0


def test_every_stream_of_requests_is_its_own_and_repeats() -> None:
    def some(stream: str) -> list[tuple[str, str, RequestTemplate]]:
        return [each for each, _ in zip(requests(MIXED, stream), range(10), strict=False)]

    assert some("user/0") == some("user/0")
    assert some("user/0") != some("user/1")


def test_there_is_an_example_of_every_entry_however_rare() -> None:
    rare = Entry(name="rare", weight=1e-9, request=RequestTemplate(steps=99))
    shots = one_of_each(msgspec.structs.replace(MIXED, mix=(*MIXED.mix, rare)))
    assert [shot.template for shot in shots] == ["short", "long", "rare"]
    assert shots[-1].request.steps == 99


def test_entries_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="different names"):
        Workload(mix=(Entry(), Entry(request=RequestTemplate(steps=3))))
