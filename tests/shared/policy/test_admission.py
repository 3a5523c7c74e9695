"""A job enters only if every queue it needs has room for it."""

import pytest

from shared.policy.admission import Queue, admit


def wanted(images: int = 1) -> dict[Queue, int]:
    counts = {"encode": 1, "denoise": images, "decode": images}
    return {(kind, "pocket-sdxl"): count for kind, count in counts.items()}


def test_a_job_enters_an_empty_system() -> None:
    assert admit(wanted(4), {}, bound=4) is None


@pytest.mark.parametrize("kind", ["encode", "denoise", "decode"])
def test_a_full_queue_refuses_by_its_name_and_bound(kind: str) -> None:
    refusal = admit(wanted(), {(kind, "pocket-sdxl"): 10}, bound=10)
    assert refusal is not None
    assert kind in refusal.fields["queue"]
    assert refusal.fields["bound"] == 10


def test_a_job_counts_all_of_its_own_nodes() -> None:
    waiting = {("denoise", "pocket-sdxl"): 7}
    assert admit(wanted(3), waiting, bound=10) is None
    assert admit(wanted(4), waiting, bound=10) is not None
