"""The auditor finds nothing in good histories, and every broken promise in broken ones."""

import random
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.chaos.check.audit import Rule, audit
from tests.chaos.check.histories import JOB, broken, good_history

chances = st.integers(0, 1 << 32).map(random.Random)
image_counts = st.integers(1, 3)


@given(chances, image_counts)
def test_a_history_that_advance_made_breaks_no_rule(chance: random.Random, images: int) -> None:
    assert audit(good_history(chance, images)) == []


@given(chances, image_counts)
def test_revisions_that_nobody_saw_are_no_violation(chance: random.Random, images: int) -> None:
    history = good_history(chance, images)
    *earlier, last = history.revisions[JOB]
    seen = [revision for revision in earlier if chance.random() < 0.5]
    assert audit(replace(history, revisions={JOB: [*seen, last]})) == []


@settings(max_examples=20)
@pytest.mark.parametrize("rule", get_args(Rule))
@given(chances, image_counts)
def test_every_broken_rule_is_found(rule: Rule, chance: random.Random, images: int) -> None:
    history = good_history(chance, images)
    assume(history.revisions[JOB][-1].status == "done")
    found = audit(broken(history, rule))
    assert rule in {violation.rule for violation in found}
    assert all(violation.job_id == JOB for violation in found)


def test_a_job_that_was_never_acknowledged_cannot_be_lost() -> None:
    history = good_history(random.Random(1), 1)
    assert audit(replace(history, acknowledged=frozenset(), results=[], revisions={})) == []
