"""LoRAs from elsewhere: fetched once, whole and checked, from allowed hosts, or not at all."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from shared.errors import AdapterUnusable, Misconfigured
from shared.messages import LoraChoice
from shared.models.loras.sources.fetch import Fetcher
from shared.models.loras.sources.hosts import Hosts
from shared.models.loras.sources.store import Store
from tests.conftest import eventually, run
from tests.helpers.lora_server import COMMIT, LoraServer, fetch_and_hang

Scenario = Callable[[LoraServer], Coroutine[None, None, None]]
SIZE = 400_000


def lora(value: float = 1.0, numbers: int = SIZE // 4) -> bytes:
    """As far as fetching is concerned, one."""
    return bytes(save({"unet.a.lora_A.weight": torch.full((numbers,), value)}))


def serving(scenario: Scenario) -> None:
    async def main() -> None:
        async with LoraServer().running() as server:
            server.files["neon.safetensors"] = lora()
            await scenario(server)

    run(main())


def url(
    server: LoraServer, where: str, name: str = "neon", sha256: str | None = None
) -> LoraChoice:
    return LoraChoice(url=f"{server.address}/{where}/{name}.safetensors", sha256=sha256)


async def content(fetcher: Fetcher, choice: LoraChoice) -> bytes:
    async with fetcher.file(choice) as path:
        return path.read_bytes()


def files(folder: Path) -> list[str]:
    return os.listdir(folder)


def begun(folder: Path) -> list[Path]:
    """Files of which a part is there."""
    return [part for part in folder.glob("*.part") if part.stat().st_size]


def spread(folder: Path) -> None:
    """Keep the order in which files were used, though the file system's clock be coarse."""
    for at, path in enumerate(sorted(folder.glob("*.json"), key=os.path.getmtime)):
        os.utime(path, (at + 1, at + 1))


@pytest.mark.parametrize("where", ["plain", "chunked", "moved", "deaf"])
def test_a_file_is_fetched_once_and_found_from_then_on(tmp_path: Path, where: str) -> None:
    async def scenario(server: LoraServer) -> None:
        fetcher = server.fetcher(tmp_path)
        choice = url(server, where, sha256=server.sha256("neon.safetensors").upper())
        for _ in range(3):
            assert await content(fetcher, choice) == server.files["neon.safetensors"]
        assert len(server.asked) == (2 if where == "moved" else 1)
        found = fetcher.statistics()
        assert (found.files, found.bytes) == (1, len(server.files["neon.safetensors"]))
        assert (found.fetches, found.hits, found.failures) == (1, 2, 0)

    serving(scenario)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("torn", "cannot be fetched"),
        ("away", "http://localhost:.* is not a host to fetch LoRAs from"),
        ("round", "more than 5 redirects"),
        ("packed", "packed"),
        ("absent", "answers 404"),
    ],
)
def test_what_cannot_be_fetched_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, where: str, reason: str
) -> None:
    async def scenario(server: LoraServer) -> None:
        fetcher = server.fetcher(tmp_path)
        with pytest.raises(AdapterUnusable, match=reason) as caught:
            await content(fetcher, url(server, where))
        assert str(caught.value.fields["adapter"]).startswith("127.0.0.1/neon.safetensors#")
        assert files(tmp_path) == []
        assert fetcher.statistics().failures == 1
        assert await content(fetcher, url(server, "plain"))

    serving(scenario)


@pytest.mark.parametrize("where", ["plain", "chunked"])
def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path, where: str) -> None:
    """Told by its length, else by its header; a header that lies helps nobody."""

    async def scenario(server: LoraServer) -> None:
        big = lora(numbers=8_000_000)
        server.files["big.safetensors"] = big
        server.files["liar.safetensors"] = lora(numbers=16) + bytes(len(big))
        fetcher = server.fetcher(tmp_path, most=SIZE)
        for name in ("big", "liar"):
            with pytest.raises(AdapterUnusable, match=f"limit is {SIZE}"):
                await content(fetcher, url(server, where, name))
        assert files(tmp_path) == []
        if where == "chunked":
            assert max(server.sent.values()) < len(big)

    serving(scenario)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>not found</html>", "not a safetensors file"),
        (b"\x80\x04pickle", "not a safetensors file"),
        ((20).to_bytes(8, "little") + b"{" * 40, "not a safetensors file"),
        (lora()[:-1], "no whole file"),
        (lora() + b"x", "no whole file"),
        (b"", "no whole file"),
        (lora()[:40], "no whole file"),
    ],
)
def test_what_is_no_whole_safetensors_file_never_counts_as_one(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    async def scenario(server: LoraServer) -> None:
        server.files["odd.safetensors"] = data
        for where in ("plain", "chunked"):
            with pytest.raises(AdapterUnusable, match=reason):
                await content(server.fetcher(tmp_path), url(server, where, "odd"))
        assert files(tmp_path) == []

    serving(scenario)


def test_a_file_with_another_checksum_is_refused_whoever_has_the_right_one(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        fetcher, right = server.fetcher(tmp_path), server.sha256("neon.safetensors")
        with pytest.raises(AdapterUnusable, match=f"its sha256 is {right}, not 0000"):
            await content(fetcher, url(server, "plain", sha256="0" * 64))
        assert files(tmp_path) == []
        assert await content(fetcher, url(server, "plain", sha256=right))

    serving(scenario)


def test_nobody_there_is_told_by_name(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        fetcher = Fetcher(
            Hosts.parse(["http://127.0.0.1:9"], server.address), Store(tmp_path, 1), 1, 20.0
        )
        with pytest.raises(AdapterUnusable, match="cannot be fetched"):
            await content(fetcher, LoraChoice(url="http://127.0.0.1:9/neon.safetensors"))

    with pytest.raises(Misconfigured, match="DARKROOM_LORA_HUB"):
        Hosts.parse([], "")
    serving(scenario)


def test_a_silent_server_costs_no_more_than_its_time(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        server.open.clear()
        store = Store(tmp_path, 2**30)
        fetcher = Fetcher(server.hosts, store, 2**30, seconds=0.2)
        with pytest.raises(AdapterUnusable, match=r"not fetched within 0\.2 s"):
            await content(fetcher, url(server, "held"))
        assert files(tmp_path) == []
        server.open.set()

    serving(scenario)


def test_who_wants_the_same_file_at_once_waits_for_the_one_who_fetches_it(tmp_path: Path) -> None:
    """Several processes of a host have a store each, and so they have here."""

    async def scenario(server: LoraServer) -> None:
        server.open.clear()
        fetchers = [server.fetcher(tmp_path) for _ in range(4)]
        choice = url(server, "held")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(content(f, choice)) for f in fetchers for _ in range(2)]
            await eventually(lambda: _parts(tmp_path))
            server.open.set()
        assert {task.result() for task in tasks} == {server.files["neon.safetensors"]}
        assert len(server.asked) == 1
        assert sum(fetcher.statistics().fetches for fetcher in fetchers) == 1
        assert not begun(tmp_path)

    async def _parts(folder: Path) -> bool:
        return bool(begun(folder))

    serving(scenario)


def test_who_gives_up_leaves_the_file_to_the_next(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        server.open.clear()
        first, second = server.fetcher(tmp_path), server.fetcher(tmp_path)
        choice = url(server, "held")
        going = asyncio.create_task(content(first, choice))
        await eventually(lambda: _asked(server, 1))
        waiting = asyncio.create_task(content(second, choice))
        going.cancel()
        await asyncio.wait([going])
        await eventually(lambda: _asked(server, 2))
        server.open.set()
        assert await waiting == server.files["neon.safetensors"]

    async def _asked(server: LoraServer, times: int) -> bool:
        return len(server.asked) == times

    serving(scenario)


def test_a_killed_process_leaves_nothing_that_counts_as_a_file(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        server.open.clear()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=fetch_and_hang, args=(server.address, str(tmp_path)))
        process.start()
        await eventually(_begun, within=60.0)
        process.kill()
        await asyncio.to_thread(process.join)
        process.close()
        assert begun(tmp_path)
        server.open.set()
        fetcher = server.fetcher(tmp_path)
        assert await content(fetcher, url(server, "held")) == server.files["neon.safetensors"]
        assert not begun(tmp_path)

    async def _begun() -> bool:
        return bool(begun(tmp_path))

    serving(scenario)


def _age(folder: Path) -> None:
    """As if all notes had been made an hour ago."""
    store = Store(folder, 1)
    for path in folder.glob("*.json"):
        note = store.note(path.stem)
        assert note is not None
        store._write(path.stem, type(note)(checked=time.time() - 3600.0, etag=note.etag))


def test_what_may_change_is_asked_for_again_and_fetched_again_if_it_did(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        fetcher, choice = server.fetcher(tmp_path), url(server, "plain")
        old = await content(fetcher, choice)
        assert await content(fetcher, choice) == old
        assert len(server.asked) == 1
        _age(tmp_path)
        assert await content(fetcher, choice) == old
        assert await content(fetcher, choice) == old
        assert len(server.asked) == 2
        assert server.sent["/plain/neon.safetensors"] == len(old)
        server.files["neon.safetensors"] = lora(2.0)
        assert await content(fetcher, choice) == old
        _age(tmp_path)
        assert await content(fetcher, choice) == lora(2.0)
        _age(tmp_path)
        del server.files["neon.safetensors"]
        with pytest.raises(AdapterUnusable, match="answers 404"):
            await content(fetcher, choice)

    serving(scenario)


def test_the_least_recently_used_files_leave_but_none_that_is_in_use(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        for name in "abcd":
            server.files[f"{name}.safetensors"] = lora(float(ord(name)))
        size = len(lora())
        fetcher = server.fetcher(tmp_path, room=2 * size)

        async def fetched(names: str) -> list[str]:
            before = len(server.asked)
            for name in names:
                await content(fetcher, url(server, "plain", name))
                spread(tmp_path)
            return [path[7:8] for path in server.paths()[before:]]

        assert await fetched("abacab") == ["a", "b", "c", "b"]
        found = fetcher.statistics()
        assert (found.files, found.bytes, found.bound) == (2, 2 * size, 2 * size)
        assert (found.evictions, found.hits) == (2, 2)
        async with fetcher.file(url(server, "plain", "a")) as path:
            assert await fetched("cd") == ["c", "d"]
            assert path.exists()
        assert fetcher.statistics().bytes == 2 * size

    serving(scenario)


@pytest.mark.parametrize("where", ["plain", "deaf", "chunked"])
def test_a_header_is_read_without_the_file(tmp_path: Path, where: str) -> None:
    async def scenario(server: LoraServer) -> None:
        many = {f"unet.{k:0500}.lora_A.weight": torch.zeros(1) for k in range(1000)}
        server.files["long.safetensors"] = save(many)  # its header comes in two pieces
        server.files["big.safetensors"] = lora(numbers=16_000_000)
        fetcher = server.fetcher(tmp_path)
        for name, keys in (("long", list(many)), ("big", ["unet.a.lora_A.weight"])):
            header = await fetcher.header(url(server, where, name))
            assert header is not None
            assert sorted(header.keys) == sorted(keys)
            assert header.file_bytes == len(server.files[f"{name}.safetensors"])
        # What is on its way when we hang up is in the buffers of two sockets.
        assert server.sent[f"/{where}/big.safetensors"] < 2**25
        assert files(tmp_path) == []
        await content(fetcher, url(server, where, "long"))
        assert await fetcher.header(url(server, where, "long")) is None

    serving(scenario)


@pytest.mark.parametrize("data", [b"", b"short", lora()[:40], b"<html></html>"])
def test_a_file_that_ends_in_its_header_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    async def scenario(server: LoraServer) -> None:
        server.files["odd.safetensors"] = data
        for where in ("plain", "chunked"):
            with pytest.raises(AdapterUnusable):
                await server.fetcher(tmp_path).header(url(server, where, "odd"))

    serving(scenario)


@pytest.mark.parametrize("text", ["owner/repo", "owner/repo:neon.safetensors"])
def test_a_hub_id_is_a_file_of_a_commit(tmp_path: Path, text: str) -> None:
    async def scenario(server: LoraServer) -> None:
        fetcher = server.fetcher(tmp_path)
        for _ in range(2):
            assert await content(fetcher, LoraChoice(hub=text))
        address = f"/owner/repo/resolve/{COMMIT}/neon.safetensors"
        assert server.paths() == ["/api/models/owner/repo/revision/main", address]
        pinned = LoraChoice(hub=f"owner/repo@{COMMIT}:neon.safetensors")
        assert await content(server.fetcher(tmp_path), pinned)
        assert len(server.asked) == 2

    serving(scenario)


def test_a_repository_of_several_files_wants_one_named(tmp_path: Path) -> None:
    async def scenario(server: LoraServer) -> None:
        server.files["ink.safetensors"] = lora(2.0)
        with pytest.raises(AdapterUnusable, match=r"it has neon\.safetensors, ink\.safetensors"):
            await content(server.fetcher(tmp_path), LoraChoice(hub="owner/repo"))
        server.files["pytorch_lora_weights.safetensors"] = lora(3.0)
        assert await content(server.fetcher(tmp_path), LoraChoice(hub="owner/repo")) == lora(3.0)

    serving(scenario)
