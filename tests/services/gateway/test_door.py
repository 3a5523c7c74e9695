"""Who is let in: tokens, TLS, and what is refused before anybody can come."""

import asyncio
import gzip
import hashlib
import io
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.fleet.certificates import issue
from services.gateway.body import MAX_BODY_BYTES
from services.gateway.door import Door
from services.gateway.tokens import Tokens, add_token
from shared.config import Settings
from shared.errors import InvalidRequest, Misconfigured, Unauthorized
from tests.conftest import run
from tests.services.gateway.server import server

TOKEN = "dr-secret"
TOKENS = Tokens({"alice": hashlib.sha256(TOKEN.encode()).hexdigest(), "bob": "0" * 64})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        bearer("dr-other"),
        bearer("0" * 64),
        bearer(hashlib.sha256(TOKEN.encode()).hexdigest()),
    ],
)
def test_without_a_known_token_nothing_answers_but_the_probes(headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with server(door=Door(TOKENS)) as here:
            for method, path in (
                ("GET", "/v1/models"),
                ("POST", "/v1/images/generations"),
                ("GET", "/v1/jobs/j"),
                ("DELETE", "/v1/jobs/j"),
                ("GET", "/metrics"),
                ("GET", "/openapi.json"),
                ("GET", "/no/such/place"),
            ):
                refused = await here.ask(method, path, headers=headers)
                assert (refused.status, refused.error["code"]) == (401, "invalid_api_key"), path
                assert refused.headers["WWW-Authenticate"] == "Bearer"
                assert TOKEN not in refused.error["message"]
            assert (await here.ask("GET", "/healthz", headers=headers)).status == 200
            assert (await here.ask("GET", "/readyz", headers=headers)).status == 503
            assert b'darkroom_refusals_total{limit="invalid_api_key"' in (
                here.gateway.metrics.render()
            )

    run(scenario())


def test_with_a_token_everything_works_and_the_log_says_whose(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with server(door=Door(TOKENS)) as here:
            assert (await here.ask("GET", "/v1/models", headers=bearer(TOKEN))).status == 200
            drawn = await here.ask(
                "POST",
                "/v1/images/generations",
                json={"prompt": "a red circle"},
                headers={"authorization": f"bearer {TOKEN}"},
            )
            assert drawn.status == 200

    caplog.set_level("INFO", "darkroom.access")
    run(scenario())
    assert {record.token for record in caplog.records if hasattr(record, "token")} == {"alice"}
    assert TOKEN not in caplog.text


def test_the_document_asks_for_a_token_exactly_where_one_is_needed() -> None:
    async def scenario() -> None:
        async with server(door=Door(TOKENS)) as here:
            document: Any = (await here.ask("GET", "/openapi.json", headers=bearer(TOKEN))).json
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    needed = path not in ("/healthz", "/readyz")
                    assert ("security" in operation) is needed
                    assert ("401" in operation["responses"]) is needed
        async with server() as here:
            document = (await here.ask("GET", "/openapi.json")).json
            assert "401" not in document["paths"]["/v1/models"]["get"]["responses"]

    run(scenario())


def test_beyond_loopback_tokens_and_tls_are_required_by_name() -> None:
    async def scenario(door: Door) -> None:
        door.refuse_unprotected("0.0.0.0")

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for door, missing in (
        (Door(), "set DARKROOM_TOKENS .* and DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY"),
        (Door(TOKENS), "set DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY"),
        (Door(None, tls), r"set DARKROOM_TOKENS \(darkroom token NAME FILE\), or"),
    ):
        with pytest.raises(Misconfigured, match=missing):
            run(scenario(door))
    run(scenario(Door(TOKENS, tls)))


def test_a_gateway_beyond_loopback_does_not_start_unprotected() -> None:
    async def scenario() -> None:
        from services.gateway.app import serving
        from shared.bus.memory import MemoryBroker
        from shared.telemetry.metrics import Metrics
        from tests import factories

        bus = MemoryBroker().connect("gateway")
        with pytest.raises(Misconfigured, match="the gateway would listen on"):
            async with serving(bus, factories.catalogue(), Metrics("gateway"), "0.0.0.0", 0):
                pass

    run(scenario())


def test_it_speaks_tls_with_the_certificate_it_was_given(tmp_path: Path) -> None:
    authority, [(certificate, key)] = issue(["gateway.example"], 1)
    for name, content in (("ca", authority), ("crt", certificate), ("key", key)):
        (tmp_path / name).write_text(content)
    settings = Settings(http_cert=str(tmp_path / "crt"), http_key=str(tmp_path / "key"))

    async def scenario() -> None:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca"))
        async with server(door=Door.of(settings)) as here:
            url = f"https://{here.gateway.address}/healthz"
            async with aiohttp.ClientSession() as http:
                async with http.get(url, ssl=trusted) as reply:
                    assert reply.status == 200
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await http.get(url)
            await asyncio.sleep(0)

    run(scenario())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(http_cert="a"), "set both DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY"),
        (Settings(http_cert="/no/such", http_key="/no/such"), "are no certificate and its key"),
        (Settings(tokens="/no/such"), "DARKROOM_TOKENS: /no/such cannot be read"),
    ],
)
def test_a_file_that_is_of_no_use_is_named_at_the_start(settings: Settings, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason):
        Door.of(settings)


# ------------------------------------------------------------------------------ the file of tokens


def test_a_new_token_opens_and_replaces_that_names_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    first, other = add_token(file, "alice"), add_token(file, "bob")
    second = add_token(file, "alice")
    tokens = Tokens.load(file)
    assert tokens.holder(f"Bearer {second}") == "alice"
    assert tokens.holder(f"Bearer {other}") == "bob"
    with pytest.raises(Unauthorized):
        tokens.holder(f"Bearer {first}")
    content = file.read_text()
    assert not any(token in content for token in (first, second, other))
    assert second not in repr(tokens)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no token"),
        ("# nobody\n\n", "holds no token"),
        ("alice\n", ":1: allowed is"),
        ("# who\nalice: 12\n", ":2: allowed is"),
        (f"alice: {'a' * 64}\nalice: {'b' * 64}\n", ":2: allowed is"),
        (f"a b: {'a' * 64}\n", ":1: allowed is"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(Misconfigured, match=reason):
        Tokens.load(file)


def test_a_file_of_tokens_that_others_may_read_is_refused(tmp_path: Path) -> None:
    add_token(tmp_path / "tokens", "alice")
    (tmp_path / "tokens").chmod(0o644)
    with pytest.raises(Misconfigured, match="mode 644"):
        Tokens.load(tmp_path / "tokens")


def test_a_name_that_could_break_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        add_token(tmp_path / "tokens", "alice: x\nmallory")


# ------------------------------------------------------------------------------------------ limits


def test_a_packed_body_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))

    async def scenario() -> None:
        async with server() as here:
            for encoding in ("gzip", "deflate", "br", "identity, gzip"):
                headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
                refused = await here.ask(
                    "POST", "/v1/images/generations", data=bomb, headers=headers
                )
                assert refused.status == 415
                assert "Content-Encoding" in refused.error["message"]

    run(scenario())


def test_refusals_are_counted_by_the_limits_name() -> None:
    async def scenario() -> None:
        async with server(max_requests=0) as here:
            full = await here.draw()
            assert (full.status, full.error["code"]) == (429, "queue_full")
            assert int(full.headers["Retry-After"]) >= 1
            headers = {"Content-Type": "application/json"}
            large = await here.ask(
                "POST",
                "/v1/images/generations",
                data=io.BytesIO(bytes(MAX_BODY_BYTES + 1)),
                headers=headers,
            )
            assert (large.status, large.error["code"]) == (413, "request_too_large")
            counted = here.gateway.metrics.render()
            assert b'darkroom_refusals_total{limit="queue_full",service="gateway"} 1.0' in counted
            assert b'limit="request_too_large",service="gateway"} 1.0' in counted

    run(scenario())
