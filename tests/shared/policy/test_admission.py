"""A job enters only if every queue it needs has room for it."""

import pytest

from shared.jobs.graph import text_to_image
from shared.policy.admission import admit
from tests.helpers.factories import spec


def test_a_job_enters_an_empty_system() -> None:
    assert admit(text_to_image(spec(n=4)), {}, bound=4) is None


@pytest.mark.parametrize("kind", ["encode", "denoise", "decode"])
def test_a_full_queue_refuses_by_its_name_and_bound(kind: str) -> None:
    refusal = admit(text_to_image(spec()), {(kind, "pocket-sdxl"): 10}, bound=10)
    assert refusal is not None
    assert kind in refusal.fields["queue"]
    assert refusal.fields["bound"] == 10


def test_a_job_counts_all_of_its_own_nodes() -> None:
    waiting = {("denoise", "pocket-sdxl"): 7}
    assert admit(text_to_image(spec(n=3)), waiting, bound=10) is None
    assert admit(text_to_image(spec(n=4)), waiting, bound=10) is not None
