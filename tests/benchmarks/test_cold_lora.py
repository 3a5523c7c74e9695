"""What is made of images with LoRAs that nobody had before."""

import json

from benchmarks.cold_lora.results import Ours, Round, Theirs, rows, summary


def seen(ours: float, fetch: float) -> Round:
    return Round(
        plain=10.0,
        plain_theirs=5.0,
        ours={"50mb": Ours(ours, 3)},
        loaded={"50mb": Theirs(fetch, 1.0, 5.0)},
        fused={"50mb": Theirs(fetch, 2.0, 5.0)},
    )


def test_each_side_is_compared_with_its_own_image_of_that_round() -> None:
    found = summary([seen(10.5, 1.5), seen(11.0, 1.5), seen(10.0, 9.0)], {"50mb": 50_000_000})
    assert found["cold_ratio_50mb"] == 1.05
    one = found["cold"]["50mb"]
    assert one["joined_at_steps"] == [3, 3, 3]
    assert one["diffusers"]["ratio"] == 1.5
    assert one["diffusers_fused"]["ratio"] == 1.7
    assert (one["diffusers_fused"]["fetch"], one["diffusers_fused"]["load"]) == (1.5, 2.0)
    assert max(len(row) for row in rows(found)) == 3
    json.dumps(found)
