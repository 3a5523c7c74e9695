"""What the kernel says of a process's memory, read."""

import os
from pathlib import Path

import pytest

from benchmarks.harness.processes import Resident
from benchmarks.shared_weights import Moment, Visit, summary

SMAPS = """\
7f0000000000-7f0000400000 rw-p 00000000 fe:01 977                        /models/a/unet.safetensors
Size:               4096 kB
Rss:                4000 kB
Pss:                2000 kB
Pss_Dirty:             8 kB
Anonymous:             8 kB
THPeligible:           0
VmFlags: rd wr mr mw me ac sd
7f0000400000-7f0000800000 rw-p 00000000 00:00 0 
Rss:                 100 kB
Pss:                 100 kB
Anonymous:           100 kB
7f0000800000-7f0000900000 r--p 00000000 fe:01 99                         /models/ab/vae.safetensors
Rss:                  10 kB
Pss:                   5 kB
Anonymous:             0 kB
"""  # noqa: W291  # as the kernel writes it


def test_only_files_below_the_directory_count() -> None:
    lines = SMAPS.splitlines()
    assert Resident.summed(lines, Path("/models/a")) == Resident(4000 << 10, 2000 << 10, 8 << 10)
    assert Resident.summed(lines, Path("/models/b")) == Resident(0, 0, 0)
    assert Resident.summed(lines, Path("/")).rss == 4010 << 10
    assert Resident.summed(lines).pss == 2105 << 10


@pytest.mark.linux
def test_this_process_is_resident() -> None:
    own = Resident.of_process(os.getpid())
    assert own.rss >= own.pss > 0
    assert own.rss >= own.own > 0


def test_held_is_told_in_copies() -> None:
    visit = Visit(Moment(1000, 5000, 0), Moment(1400, 5400, 400), Moment(1000, 5000, 0), 0.5)
    found = summary([visit], weights=1000, empty=3900)
    assert found["held"] == {"started": 1.1, "merged": 1.5, "restored": 1.1}
    assert found["mapped"] == {"started": 1.0, "merged": 1.4, "restored": 1.0}
    assert found["merged_bytes"] == 400
    assert found["process_bytes"]["merged"] == 5400
