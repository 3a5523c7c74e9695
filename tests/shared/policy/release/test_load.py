"""What is remembered of what processes report."""

from dataclasses import replace

from shared.policy.release.load import with_idleness
from tests.shared.policy.release.test_release import idle

NOW = idle().processes[0]


def test_a_process_is_idle_since_it_had_something_in_hand_last() -> None:
    [first] = with_idleness([replace(NOW, at=1.0)], [])
    [busy] = with_idleness([replace(NOW, at=2.0, count=1)], [first])
    [busier] = with_idleness([replace(NOW, at=3.0, count=2)], [busy])
    [then] = with_idleness([replace(NOW, at=4.0)], [busier])
    [still] = with_idleness([replace(NOW, at=9.0)], [then])
    found = [one.idle_since for one in (first, busy, busier, then, still)]
    assert found == [1.0, None, None, 3.0, 3.0]
