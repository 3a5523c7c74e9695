"""A server under the keys of `darkroom keys`: default-deny, and every refusal has a name."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.fleet.access.keys import make_keys, server_access
from shared import subjects
from shared.bus.embedded import NatsServer, nats_server
from shared.bus.nats import NatsBus, connect
from shared.bus.topology import TOPOLOGY
from shared.errors import Misconfigured, NotPermitted
from shared.security.keys import ANONYMOUS, Credentials
from shared.services import Served
from tests.conftest import HANG_SECONDS, run

SERVED = Served(("pocket",), ("edges",))


@asynccontextmanager
async def secured(directory: Path, *hosts: str) -> AsyncIterator[tuple[NatsServer, Path]]:
    """A server with its streams, and where its keys are."""
    keys = directory / "keys"
    make_keys(keys, SERVED, hosts)
    async with nats_server(directory / "nats", access=server_access(keys)) as server:
        async with signed_in(server, keys, "planner") as bus:
            await bus.ensure(TOPOLOGY)
        yield server, keys


@asynccontextmanager
async def signed_in(server: NatsServer, keys: Path, holder: str) -> AsyncIterator[NatsBus]:
    bus = await connect(
        server.url, holder, budget=HANG_SECONDS, credentials=Credentials.of_directory(keys / holder)
    )
    try:
        yield bus
    finally:
        await bus.close()


async def subscribe(bus: NatsBus, subject: str) -> None:
    async with bus.subscribe(subject):
        pass


async def fetch(bus: NatsBus, kind: str, model: str = "pocket") -> None:
    name, pattern = (
        subjects.work_consumer(kind, model, "batch"),
        subjects.work_filter(kind, model, "batch"),
    )
    consumer = await bus.consumer(subjects.WORK, name, pattern, 30.0)
    await consumer.fetch(1, 0.0)


DENIED: list[tuple[str, str, Callable[[NatsBus], Awaitable[object]]]] = [
    ("vae", "dr.v1.submit.j", lambda bus: bus.store(subjects.submit("j"), b"")),
    ("vae", "CONSUMER.CREATE.WORK.denoise-pocket-batch", lambda bus: fetch(bus, "denoise")),
    ("denoiser", "dr.v1.result.j.0", lambda bus: bus.store(subjects.image_result("j", 0), b"")),
    ("denoiser", "STREAM.PURGE.WORK", lambda bus: bus.remove(subjects.WORK, "dr.v1.work.a")),
    ("denoiser", "dr.v1.control.edges", lambda bus: subscribe(bus, subjects.control("edges"))),
    ("denoiser", "INPUTS.dr.v1.input.j.0", lambda bus: bus.stored(subjects.job_input("j", 0))),
    ("controlnet", "dr.v1.input.j.0", lambda bus: bus.store(subjects.job_input("j", 0), b"")),
    ("controlnet", "CONSUMER.CREATE.WORK.encode-pocket-batch", lambda bus: fetch(bus, "encode")),
    ("prompt_encoder", "dr.v1.event.*", lambda bus: subscribe(bus, subjects.event("*"))),
    ("planner", "dr.v1.submit.j", lambda bus: bus.store(subjects.submit("j"), b"")),
    ("gateway", "$KV.records.j", lambda bus: bus.create(subjects.RECORDS, "j", b"")),
    ("client", "$KV.records.j", lambda bus: bus.create(subjects.RECORDS, "j", b"")),
    ("client", "STREAM.CREATE.JOBS", lambda bus: bus.ensure(TOPOLOGY)),
    ("client", "dr.v1.work.>", lambda bus: subscribe(bus, subjects.ALL_WORK)),
    ("client", "_INBOX.>", lambda bus: subscribe(bus, "_INBOX.>")),
    ("placement", "dr.v1.result.j", lambda bus: bus.store(subjects.result("j"), b"")),
]


@pytest.mark.parametrize("hosts", [(), ("localhost",)], ids=["clear", "tls"])
def test_what_is_not_a_services_own_is_denied_at_once_and_by_name(
    tmp_path: Path, hosts: tuple[str, ...]
) -> None:
    async def scenario() -> None:
        async with secured(tmp_path, *hosts) as (server, keys):
            assert server.url.startswith("tls://" if hosts else "nats://")
            for holder, named, attempt in DENIED:
                async with signed_in(server, keys, holder) as bus:
                    with pytest.raises(NotPermitted) as denied:
                        await attempt(bus)
                assert str(denied.value.fields["subject"]).endswith(named), holder

    run(scenario())


def test_what_is_a_services_own_works(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secured(tmp_path) as (server, keys):
            async with signed_in(server, keys, "client") as bus:
                assert await bus.store(subjects.submit("j"), b"x") == "stored"
                assert await bus.stored(subjects.submit("j")) == b"x"
            async with signed_in(server, keys, "vae") as bus:
                await bus.ensure(TOPOLOGY)
                assert await bus.store(subjects.image_result("j", 0), b"i") == "stored"
                await bus.update(subjects.RECORDS, "j", b"r", 0)
                await fetch(bus, "decode")
            async with signed_in(server, keys, "client") as bus:
                assert await bus.stored(subjects.image_result("j", 0)) == b"i"
                entry = await bus.get(subjects.RECORDS, "j")
                assert entry is not None
                assert entry.value == b"r"

    run(scenario())


def test_a_picture_goes_from_the_planner_to_the_controlnet_which_answers_denoisers(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with (
            secured(tmp_path) as (server, keys),
            signed_in(server, keys, "planner") as planner,
            signed_in(server, keys, "controlnet") as controlnet,
            signed_in(server, keys, "denoiser") as denoiser,
            controlnet.subscribe(subjects.control("edges"), "controlnet") as requests,
            controlnet.subscribe(subjects.release("arena")) as releases,
        ):
            picture = subjects.job_input("j", 0)
            assert await planner.store(picture, b"p") == "stored"
            assert await planner.store(picture, b"p") == "duplicate"
            await controlnet.ensure(TOPOLOGY)
            assert await controlnet.stored(picture) == b"p"
            await fetch(controlnet, "hint", "edges")

            async def answer() -> None:
                async for request in requests:
                    await controlnet.publish(request.reply, b"!")
                    return

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(answer())
                reply = await denoiser.request(subjects.control("edges"), b"?", 5.0)
            assert reply.data == b"!"
            await denoiser.publish(subjects.release("arena"), b"free")
            async for release in releases:
                assert release.data == b"free"
                break

    run(scenario())


def test_a_request_may_be_answered_once_by_whoever_received_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            secured(tmp_path) as (server, keys),
            signed_in(server, keys, "client") as client,
            signed_in(server, keys, "planner") as planner,
            planner.subscribe(subjects.ALL_CANCELS) as requests,
        ):
            asked = client.request(subjects.cancel("j"), b"?", 5.0)

            async def answer() -> None:
                async for request in requests:
                    await planner.publish(request.reply, b"!")
                    return

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(answer())
                reply = await asked
            assert reply.data == b"!"

    run(scenario())


def test_without_credentials_or_with_anothers_nobody_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        make_keys(tmp_path / "other", SERVED, ())
        async with secured(tmp_path) as (server, _):
            with pytest.raises(Misconfigured, match="asks for credentials: set DARKROOM_CRED"):
                await connect(server.url, "nobody", budget=HANG_SECONDS)
            with pytest.raises(Misconfigured, match="does not know these credentials"):
                async with signed_in(server, tmp_path / "other", "admin"):
                    pass

    monkeypatch.delenv("DARKROOM_CREDENTIALS", raising=False)
    run(scenario())


def test_credentials_come_from_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with secured(tmp_path) as (server, keys):
            monkeypatch.setenv("DARKROOM_CREDENTIALS", str(keys / "client"))
            bus = await connect(server.url, "client")
            assert await bus.stored(subjects.submit("j")) is None
            await bus.close()

    run(scenario())


def test_a_server_that_cannot_prove_itself_is_not_talked_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        make_keys(tmp_path / "other", SERVED, ("localhost",))
        async with secured(tmp_path, "localhost") as (server, keys):
            (keys / "client" / "ca.crt").write_bytes(
                (tmp_path / "other" / "client" / "ca.crt").read_bytes()
            )
            with pytest.raises(Misconfigured, match=r"cannot prove who it is .* ca\.crt"):
                async with signed_in(server, keys, "client"):
                    pass

    run(scenario())


def test_whoever_has_an_authority_talks_to_no_server_in_the_clear(tmp_path: Path) -> None:
    async def scenario() -> None:
        make_keys(tmp_path / "keys", SERVED, ())
        access = server_access(tmp_path / "keys")
        make_keys(tmp_path / "keys", SERVED, ("localhost",))
        async with nats_server(tmp_path / "nats", access=access) as server:
            with pytest.raises(Misconfigured, match="does not begin with TLS"):
                async with signed_in(server, tmp_path / "keys", "client"):
                    pass

    run(scenario())


def test_nobody_in_particular_is_nobody_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path / "nats") as server:
            bus = await connect(server.url, "anybody", credentials=ANONYMOUS)
            await bus.close()

    monkeypatch.setenv("DARKROOM_CREDENTIALS", "/no/such/place")
    run(scenario())


def test_a_server_beyond_loopback_needs_keys_and_tls(tmp_path: Path) -> None:
    async def scenario() -> None:
        make_keys(tmp_path / "keys", SERVED, ())
        for access in (None, server_access(tmp_path / "keys")):
            with pytest.raises(Misconfigured, match=r"nats-server would listen on '0\.0\.0\.0'"):
                async with nats_server(tmp_path / "nats", host="0.0.0.0", access=access):
                    pass
        make_keys(tmp_path / "keys", SERVED, ("localhost",))
        access = server_access(tmp_path / "keys")
        async with nats_server(tmp_path / "nats", host="0.0.0.0", access=access) as server:
            assert server.url.startswith("tls://")

    run(scenario())
