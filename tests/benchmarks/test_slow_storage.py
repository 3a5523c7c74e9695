"""The storage that cold LoRAs come from: as slow as it is told to be, and whole."""

from pathlib import Path

import aiohttp

from benchmarks.cold_lora.__main__ import fetch
from benchmarks.cold_lora.storage import slow_storage
from tests.conftest import run

FILE = bytes(range(256)) * 4096


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
