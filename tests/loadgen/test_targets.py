"""Both ways to speak to a Darkroom, and a plain server's, on real connections where there are."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from loadgen.outcomes.outcome import RequestTemplate, Shot
from loadgen.targets.base import HTTP_FIELDS, NATS_FIELDS, OPENAI_FIELDS, Answer, not_sent
from loadgen.targets.choose import chosen
from loadgen.targets.http import HttpTarget, only
from loadgen.targets.images import ResponseFormat, answer, base_url, body
from loadgen.targets.nats import NatsTarget, job_request
from services.fleet.access.certificates import issue
from services.fleet.access.keys import make_keys
from services.gateway.http.access import AccessControl
from services.gateway.http.certificate import server_context
from services.gateway.openai.fields import ImagesRequest
from shared.bus.memory import MemoryBus
from shared.client import Darkroom
from shared.client.fleet_state import FleetState, state_directory, write
from shared.errors import HandleLost, InvalidRequest, Misconfigured, QueueFull
from shared.messages import ControlChoice, GenerationRequest, LoraChoice
from shared.services import Served
from shared.tensors.owners import start_time
from tests.conftest import eventually, run
from tests.loadgen.servers import Server
from tests.services.gateway.pipeline import picture, pipeline
from tests.services.gateway.server import server

EVERYTHING = RequestTemplate(
    model="pocket-sdxl",
    prompt="a red circle",
    negative_prompt="blue",
    width=128,
    height=64,
    steps=4,
    guidance=3.0,
    sampler="euler",
    seed=7,
    n=2,
    service_class="batch",
    deadline=30.0,
    mask_ratio=0.2,
    controls=(f"canny={__file__}:0.5",),
    loras=("ink",),
)
HERE = base64.b64encode(Path(__file__).read_bytes()).decode()
"""A file that is there stands in for a picture."""
QUICK = RequestTemplate(steps=2, seed=1)
PNG = b"\x89PNG and so on"


def shot(request: RequestTemplate = QUICK) -> Shot:
    return Shot(3, 1.5, "ann", "default", request)


@asynccontextmanager
async def nats_target(bus: MemoryBus) -> AsyncIterator[NatsTarget]:
    async with Darkroom(bus) as darkroom, asyncio.TaskGroup() as group:
        yield NatsTarget(bus, darkroom, "nats://here", group)


# ------------------------------------------------------------------------------- what is asked for


def test_the_gateway_is_asked_for_every_field_that_it_takes() -> None:
    sent = body(shot(EVERYTHING), HTTP_FIELDS)
    assert sent == {
        "model": "pocket-sdxl",
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "n": 2,
        "size": "128x64",
        "response_format": "b64_json",
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "sampler": "euler",
        "seed": 7,
        "loras": [{"name": "ink"}],
        "controls": [{"model": "canny", "image": HERE, "scale": 0.5}],
        "service_class": "batch",
        "deadline": 30.0,
        "user": "ann",
    }
    assert set(sent) <= set(ImagesRequest.__struct_fields__)


def test_a_picture_that_is_gone_is_a_refusal_and_not_the_end_of_the_run() -> None:
    async def scenario() -> None:
        gone = shot(RequestTemplate(controls=("canny=/no/such/file.png",)))
        async with server() as here, HttpTarget.connect(here.url) as http:
            assert await http.send(gone) == Answer("rejected", "invalid_request")
            async with nats_target(here.bus) as nats:
                assert await nats.send(gone) == Answer("rejected", "invalid_request")

    run(scenario())


def test_a_plain_server_is_asked_for_openais_fields_and_what_else_it_is_said_to_take() -> None:
    plain = body(shot(EVERYTHING), OPENAI_FIELDS)
    assert set(plain) == {"model", "prompt", "n", "size", "response_format", "user"}
    more = body(shot(EVERYTHING), OPENAI_FIELDS | {"steps", "loras"})
    assert (more["num_inference_steps"], more["loras"]) == (4, [{"name": "ink"}])


@pytest.mark.parametrize(("given", "sent"), [(None, {}), ("url", {"response_format": "url"})])
def test_how_pictures_are_asked_for_can_be_chosen_or_left_out(
    given: ResponseFormat | None, sent: dict[str, str]
) -> None:
    asked = body(shot(RequestTemplate(prompt="a")), HTTP_FIELDS, given)
    assert asked == {"prompt": "a", "n": 1, "user": "ann"} | sent


def test_what_is_left_open_is_left_to_the_server() -> None:
    sent = body(shot(RequestTemplate(prompt="a")), HTTP_FIELDS)
    assert sent == {"prompt": "a", "n": 1, "response_format": "b64_json", "user": "ann"}


def test_a_job_has_an_absolute_deadline_counted_from_now() -> None:
    job = job_request(shot(EVERYTHING), "j1", 1000.0)
    assert job == GenerationRequest(
        job_id="j1",
        prompt="a red circle",
        model="pocket-sdxl",
        negative_prompt="blue",
        n=2,
        width=128,
        height=64,
        steps=4,
        guidance=3.0,
        sampler="euler",
        seed=7,
        loras=(LoraChoice(name="ink"),),
        controls=(ControlChoice(model="canny", image=Path(__file__).read_bytes(), scale=0.5),),
        service_class="batch",
        deadline=1030.0,
        user="ann",
    )


@pytest.mark.parametrize(
    ("takes", "missing"),
    [
        (NATS_FIELDS, ("mask_ratio",)),
        (HTTP_FIELDS, ("mask_ratio",)),
        (
            OPENAI_FIELDS,
            (
                *("controls", "deadline", "guidance", "loras", "mask_ratio"),
                *("negative_prompt", "sampler", "service_class", "steps"),
            ),
        ),
    ],
)
def test_fields_that_a_target_does_not_take_are_named(
    takes: frozenset[str], missing: tuple[str, ...]
) -> None:
    assert not_sent(Server(1.0, takes=takes), [shot(), shot(EVERYTHING)]) == missing
    assert not_sent(Server(1.0, takes=takes), [shot(RequestTemplate(seed=3))]) == ()


# --------------------------------------------------------------------------- what an answer means


def reply(*images: dict[str, str]) -> bytes:
    return json.dumps({"data": list(images)}).encode()


def b64(data: bytes) -> dict[str, str]:
    return {"b64_json": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("status", "data", "meant"),
    [
        (200, reply(b64(PNG)), Answer("done", None, 1, len(PNG))),
        (200, reply({"url": "http://elsewhere/1.png"}), Answer("done", None, 1, 0)),
        (200, reply(), Answer("failed", "wrong_image_count")),
        (200, reply(b64(PNG), b64(PNG)), Answer("failed", "wrong_image_count", 2, 2 * len(PNG))),
        (200, reply(b64(b"<html>")), Answer("failed", "bad_reply")),
        (200, reply({"b64_json": "?"}), Answer("failed", "bad_reply")),
        (200, reply({}), Answer("failed", "bad_reply")),
        (200, b"hello", Answer("failed", "bad_reply")),
        (429, b'{"error": {"code": "queue_full"}}', Answer("rejected", "queue_full")),
        (400, b'{"error": {"code": null}}', Answer("rejected", "http_400")),
        (500, b'{"error": {"code": 17}}', Answer("failed", "17")),
        (502, b"<html>bad gateway</html>", Answer("failed", "http_502")),
        (301, b"", Answer("failed", "http_301")),
    ],
)
def test_a_reply_is_done_only_with_the_pictures_that_were_asked_for(
    status: int, data: bytes, meant: Answer
) -> None:
    assert answer(status, data, 1) == meant


# ---------------------------------------------------------------------------- on real connections


def test_a_picture_to_steer_by_reaches_the_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "a.png").write_bytes(bytes(2**20))
        request = RequestTemplate(steps=2, controls=(f"edges={tmp_path}/a.png:0.5",))
        async with server() as here, HttpTarget.connect(here.url) as target:
            assert (await target.send(shot(request))).status == "done"
            [spec] = here.line.specs.values()
            assert [(control.model, control.scale) for control in spec.controls] == [("edges", 0.5)]

    run(scenario())


def test_the_gateway_draws_what_was_asked_for_and_knows_the_tenant() -> None:
    async def scenario() -> None:
        request = RequestTemplate(steps=2, seed=1, n=2, deadline=60.0)
        async with server() as here, HttpTarget.connect(here.url) as target:
            got = await target.send(shot(request))
            [spec] = here.line.specs.values()
        assert (got.status, got.failure, got.images) == ("done", None, 2)
        assert got.bytes == 2 * len(picture(spec))
        assert (spec.user, spec.steps, spec.n) == ("ann", 2, 2)
        assert spec.deadline is not None

    run(scenario())


def test_the_gateways_refusals_and_failures_have_their_own_names() -> None:
    async def scenario() -> None:
        async with server() as here, HttpTarget.connect(here.url) as target:
            bad = await target.send(shot(RequestTemplate(width=100, height=100)))
            here.line.refusal = QueueFull("jobs", 4)
            full = await target.send(shot())
            here.line.refusal, here.line.failure = None, InvalidRequest("steps", 1, "others")
            failed = await target.send(shot())
        assert bad == Answer("rejected", "invalid_value")
        assert full == Answer("rejected", "queue_full")
        assert failed.status == "rejected"

    run(scenario())


def test_a_server_that_is_not_there_is_a_failure_by_its_exceptions_name() -> None:
    async def scenario() -> Answer:
        async with server() as here:
            url = here.url
        async with HttpTarget.connect(url) as target:
            return await target.send(shot())

    assert run(scenario()) == Answer("failed", "ClientConnectorError")


def test_a_plain_server_gets_the_api_key_and_nothing_that_it_does_not_know() -> None:
    asked: list[tuple[str | None, Any]] = []

    async def draw(request: web.Request) -> web.Response:
        asked.append((request.headers.get("Authorization"), await request.json()))
        return web.Response(body=reply(b64(PNG)), content_type="application/json")

    async def scenario() -> Answer:
        app = web.Application()
        app.add_routes([web.post("/v1/images/generations", draw)])
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/"
            async with HttpTarget.connect(
                url, kind="openai", takes=OPENAI_FIELDS, api_key="secret"
            ) as target:
                assert target.name == f"openai at {url.rstrip('/')}"
                return await target.send(shot(EVERYTHING))
        finally:
            await runner.cleanup()

    # One picture came where two were asked for.
    assert run(scenario()) == Answer("failed", "wrong_image_count", 1, len(PNG))
    [(key, sent)] = asked
    assert key == "Bearer secret"
    assert set(sent) == {"model", "prompt", "n", "size", "response_format", "user"}


def test_a_hung_up_request_cancels_the_gateways_job() -> None:
    async def scenario() -> None:
        async with server() as here, HttpTarget.connect(here.url) as target:
            here.line.hold.clear()
            sending = asyncio.create_task(target.send(shot()))
            await here.line.started.wait()
            sending.cancel()
            await eventually(lambda: _length(here.line.cancelled, 1))

    run(scenario())


def test_a_job_over_nats_ends_with_its_pictures_or_its_error() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), nats_target(bus) as target:
            done = await target.send(shot(RequestTemplate(steps=2, n=2)))
            line.failure = HandleLost("x", "gone")
            bad = await target.send(shot(RequestTemplate(width=100, height=100)))
            line.refusal = QueueFull("jobs", 4)
            full = await target.send(shot())
        assert (done.status, done.images) == ("done", 2)
        assert done.bytes > 0
        assert bad == Answer("rejected", "invalid_request")
        assert full == Answer("rejected", "queue_full")

    run(scenario())


def test_a_job_over_nats_that_nobody_waits_for_any_more_is_cancelled() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), nats_target(bus) as target:
            line.hold.clear()
            sending = asyncio.create_task(target.send(shot()))
            await line.started.wait()
            sending.cancel()
            await asyncio.wait({sending})
            await eventually(lambda: _length(line.cancelled, 1))

    run(scenario())


async def _length(of: list[str], wanted: int) -> bool:
    return len(of) == wanted


# -------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/images/generations"]
)
def test_the_address_may_be_given_with_or_without_its_path(url: str) -> None:
    assert base_url(url) == "http://h:1/v1"


def test_the_scheme_says_which_kind_of_server_it_is() -> None:
    assert chosen(None, "nats://h:1", also=frozenset()).kind == "nats"
    assert chosen(None, "http://h:1", also=frozenset()).kind == "darkroom"
    for kind, url in (("nats", "http://h:1"), ("openai", "nats://h:1"), (None, "h:1")):
        with pytest.raises(InvalidRequest, match="--url"):
            chosen(kind, url, also=frozenset())
    with pytest.raises(InvalidRequest, match="--target"):
        chosen("grpc", None, also=frozenset())


@pytest.mark.parametrize(
    ("given", "meant"),
    [(None, "b64_json"), ("b64_json", "b64_json"), ("url", "url"), ("none", None)],
)
def test_the_option_says_how_pictures_are_asked_for(given: str | None, meant: str | None) -> None:
    options = chosen("openai", "http://h:1", also=frozenset(), response_format=given)
    assert options.response_format == meant


@pytest.mark.parametrize(("url", "given"), [("http://h:1", "b64"), ("nats://h:1", "url")])
def test_a_format_that_cannot_be_is_refused(url: str, given: str) -> None:
    with pytest.raises(InvalidRequest, match="--response-format"):
        chosen(None, url, also=frozenset(), response_format=given)


def test_a_token_goes_to_nobody_but_whom_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_TOKEN", "ours")
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    for kind, token in (("darkroom", "ours"), ("openai", "theirs")):
        assert chosen(kind, "http://h:1", also=frozenset()).api_key == token
    assert chosen("nats", "nats://h:1", also=frozenset()).api_key is None
    assert chosen("openai", "http://h:1", api_key="given", also=frozenset()).api_key == "given"


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetState:
    """This process, taken for a fleet with keys whose gateway listens on all addresses."""
    for variable in ("DARKROOM_TOKEN", "OPENAI_API_KEY", "DARKROOM_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DARKROOM_STATE_DIR", str(tmp_path / "state"))
    make_keys(tmp_path / "keys", Served(("m",), ()), ["localhost"])
    state = FleetState(
        pid=os.getpid(),
        started=start_time(os.getpid()) or 0,
        nats_url="tls://127.0.0.1:4222",
        http="0.0.0.0:8080",
        http_url="https://0.0.0.0:8080",
        logs="",
        models=("m",),
        members=(),
        keys=str(tmp_path / "keys"),
    )
    write(state_directory(), state)
    return state


@pytest.mark.parametrize("kind", ["darkroom", "openai"])
@pytest.mark.parametrize(
    "url", [None, "https://127.0.0.1:8080", "https://localhost:8080/v1", "https://127.0.0.9:8080"]
)
def test_the_keys_of_the_fleet_that_runs_here_are_found_however_it_is_called(
    running: FleetState, kind: str, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "openai" and url is None:
        return  # a plain server is never found by itself
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    options = chosen(kind, url, also=frozenset())
    client = Path(running.keys) / "client"
    assert options.url == (url or "https://127.0.0.1:8080")
    assert options.api_key == (client / "token").read_text().strip()
    assert options.ca == client / "ca.crt"
    monkeypatch.setenv("DARKROOM_TOKEN", "another user's")
    assert chosen(kind, url, also=frozenset()).api_key == "another user's"
    assert chosen(kind, url, api_key="given", also=frozenset()).api_key == "given"


def test_the_certificate_that_the_operator_brought_is_found(running: FleetState) -> None:
    own = msgspec.structs.replace(running, keys="", http_certificate="/etc/own.pem")
    write(state_directory(), own)
    for url in (None, "https://localhost:8080"):
        assert chosen(None, url, also=frozenset()).certificate == Path("/etc/own.pem")
    assert chosen(None, "https://192.0.2.1:8080", also=frozenset()).certificate is None


def test_a_known_certificate_counts_whoever_signed_it_and_no_other_does(tmp_path: Path) -> None:
    _, [(own, key), (other, _)] = issue(["studio.example"], 2)
    for name, pem in {"own": own, "key": key, "other": other}.items():
        (tmp_path / name).write_text(pem)
    (tmp_path / "chain").write_text("for people\n" + own + other)
    tls = server_context(str(tmp_path / "own"), str(tmp_path / "key"))

    async def statuses() -> list[str | None]:
        access = AccessControl(tls=tls)
        found: list[str | None] = []
        async with server(access=access) as here:
            url = here.url.replace("http:", "https:")
            for name in ("own", "chain", "other"):
                async with HttpTarget.connect(url, certificate=tmp_path / name) as target:
                    found.append((await target.send(shot())).failure)
        return found

    assert run(statuses()) == [None, None, "ClientConnectorCertificateError"]
    assert not only(tmp_path / "own").check_hostname
    with pytest.raises(Misconfigured, match="holds no certificate"):
        only(tmp_path / "key")


@pytest.mark.parametrize("url", [None, "nats://localhost:4222", "tls://127.0.0.1:4222"])
def test_the_key_for_the_bus_of_the_fleet_that_runs_here_is_found(
    running: FleetState, url: str | None
) -> None:
    options = chosen("nats", url, also=frozenset())
    assert options.credentials is not None
    assert options.credentials.public == running.credentials("client").public


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("darkroom", "https://127.0.0.1:8081"),
        ("darkroom", "http://127.0.0.1:8080"),
        ("darkroom", "https://192.0.2.1:8080"),
        ("openai", "https://192.0.2.1:8080"),
        ("nats", "nats://192.0.2.1:4222"),
        ("nats", "nats://127.0.0.1:4223"),
    ],
)
def test_another_server_is_sent_nothing_of_the_fleet_that_runs_here(
    running: FleetState, kind: str, url: str
) -> None:
    options = chosen(kind, url, also=frozenset())
    assert (options.api_key, options.ca, options.credentials) == (None, None, None)


@pytest.mark.parametrize(
    ("kind", "url", "sent"),
    [
        ("darkroom", "https://192.0.2.1:8080", True),
        ("darkroom", "http://127.0.0.1:8081", True),
        ("darkroom", "http://192.0.2.1:8080", False),
        ("openai", "https://192.0.2.1:8080", False),
    ],
)
def test_keys_that_the_environment_names_go_only_where_nobody_can_read_them(
    running: FleetState, kind: str, url: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Path(running.keys) / "client"
    monkeypatch.setenv("DARKROOM_CREDENTIALS", str(client))
    options = chosen(kind, url, also=frozenset())
    assert options.api_key == ((client / "token").read_text().strip() if sent else None)
    assert options.ca == (client / "ca.crt" if sent else None)


def test_an_address_can_be_given_where_there_is_no_directory_for_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    monkeypatch.setenv("DARKROOM_STATE_DIR", str(tmp_path / "open"))
    assert chosen(None, "http://h:1", also=frozenset()).url == "http://h:1"
    with pytest.raises(Misconfigured, match="mode 755"):
        chosen(None, None, also=frozenset())


def test_without_an_address_the_fleet_that_runs_here_is_meant(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(Misconfigured, match="darkroom up"):
        chosen(None, None, also=frozenset())
    with pytest.raises(Misconfigured, match="--url"):
        chosen("openai", None, also=frozenset())
