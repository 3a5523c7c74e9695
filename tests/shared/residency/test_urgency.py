"""A load's own thread steps aside for others if nobody waits for it."""

import os
import sys
import threading

import pytest

from shared.residency.item import at_once, undivided
from shared.residency.urgency import NICENESS, beside_others


def look() -> tuple[int, float]:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), sys.getswitchinterval()


def seen(patient: bool) -> tuple[int, float]:
    def within() -> tuple[int, float]:
        with beside_others(patient):
            return look()

    return at_once(undivided(within, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_only_a_patient_load_is_less_urgent_and_none_keeps_the_interpreter() -> None:
    urgent, usual = look()
    assert seen(patient=False)[0] == urgent
    assert seen(patient=True)[0] == min(19, urgent + NICENESS)
    assert max(seen(patient=False)[1], seen(patient=True)[1]) < usual
    assert look() == (urgent, usual)
