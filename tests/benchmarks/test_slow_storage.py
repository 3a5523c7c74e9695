"""The storage that cold LoRAs come from: as slow as it is told to be, and whole."""

from pathlib import Path

import aiohttp
import pytest

from benchmarks.cold_lora.__main__ import fetch
from benchmarks.cold_lora.storage import SLACK_SECONDS, Pace, slow_storage
from tests.conftest import run

FILE = bytes(range(256)) * 4096


def test_bytes_are_through_one_after_another_whoever_asks() -> None:
    pace = Pace(rate=100.0)
    pace.wait(1, now=0.0)
    waits = [pace.wait(50, now=10.0) for _ in range(3)]
    assert waits == pytest.approx([0.5 - SLACK_SECONDS + 0.5 * n for n in range(3)])


def test_who_wakes_up_a_little_late_catches_up_and_who_idled_does_not() -> None:
    pace = Pace(rate=100.0)
    pace.wait(100, now=10.0)
    assert pace.wait(100, now=11.0) == pytest.approx(1.0 - SLACK_SECONDS)
    assert pace.wait(100, now=100.0) == pytest.approx(1.0 - SLACK_SECONDS)


def test_files_and_ranges_of_them_arrive_whole(tmp_path: Path) -> None:
    (tmp_path / "some.safetensors").write_bytes(FILE)

    async def scenario() -> None:
        async with slow_storage(tmp_path, rate=1e9) as origin:
            address = f"{origin}/some.safetensors"
            await fetch(address, tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == FILE
            async with aiohttp.ClientSession() as session:
                asked = {"Range": "bytes=100-199"}
                async with session.get(address, headers=asked) as response:
                    assert response.status == 206
                    assert response.headers["Content-Range"] == f"bytes 100-199/{len(FILE)}"
                    assert await response.read() == FILE[100:200]
                async with session.get(f"{origin}/other") as response:
                    assert response.status == 404

    run(scenario())
