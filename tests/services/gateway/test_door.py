"""Who is let in: tokens, TLS, and what is refused before anybody can come."""

import asyncio
import gzip
import hashlib
import io
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from services.fleet.access.certificates import issue
from services.gateway.app import authority
from services.gateway.http.access import AccessControl
from services.gateway.http.body import MAX_BODY_BYTES
from shared.client import new_job_id
from shared.config import Settings
from shared.errors import Forbidden, InvalidRequest, Misconfigured, Unauthorized
from shared.security.private_files import write_private
from shared.security.tokens import Tokens, add_token
from tests.conftest import run
from tests.services.gateway.server import Server, server

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
        async with server(access=AccessControl(TOKENS)) as here:
            for method, path in (
                ("GET", "/v1/models"),
                ("POST", "/v1/images/generations"),
                ("GET", "/v1/jobs/j"),
                ("DELETE", "/v1/jobs/j"),
                ("GET", "/v1/images/job-1/0"),
                ("DELETE", f"/v1/jobs/{new_job_id()}"),
                ("GET", f"/v1/jobs/{new_job_id()}"),
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
        async with server(access=AccessControl(TOKENS)) as here:
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


def test_interactive_jobs_need_a_token_that_may_ask_for_them() -> None:
    async def scenario() -> None:
        async with server(access=AccessControl(TOKENS)) as here:
            path, wanted = "/v1/images/generations", {"prompt": "a circle"}
            body = {**wanted, "service_class": "interactive"}
            refused = await here.ask("POST", path, json=body, headers=bearer(TOKEN))
            assert (refused.status, refused.error["code"]) == (403, "permission_denied")
            assert "'alice' may not ask for 'interactive'" in refused.error["message"]
        allowed = Tokens({"alice": hashlib.sha256(TOKEN.encode()).hexdigest()}, {"alice"})
        async with server(access=AccessControl(allowed)) as here:
            drawn = await here.ask("POST", path, json=body, headers=bearer(TOKEN))
            assert drawn.status == 200
        async with server() as here:
            assert (await here.ask("POST", path, json=body)).status == 200

    run(scenario())


def test_a_file_of_tokens_says_which_may_be_interactive(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    add_token(path, "alice")
    add_token(path, "bob", interactive=True)
    tokens = Tokens.load(path)
    tokens.check_class("bob", "interactive")
    tokens.check_class("alice", "batch")
    with pytest.raises(Forbidden):
        tokens.check_class("alice", "interactive")


def test_an_address_that_cannot_be_guessed_needs_no_token() -> None:
    async def scenario() -> None:
        async with server(access=AccessControl(TOKENS)) as here:
            body = {"prompt": "a red circle", "response_format": "url"}
            drawn = await here.ask(
                "POST", "/v1/images/generations", json=body, headers=bearer(TOKEN)
            )
            path = drawn.json["data"][0]["url"].removeprefix(here.url)
            for headers in ({}, bearer("dr-other"), bearer(TOKEN)):
                for method in ("GET", "HEAD"):
                    shown = await here.ask(method, path, headers=headers)
                    assert (shown.status, shown.headers["Content-Type"]) == (200, "image/png")
            assert (await here.ask("DELETE", path)).status == 401
            assert (await here.ask("GET", f"/v1/images/{new_job_id()}/0")).status == 404

    run(scenario())


def test_the_document_asks_for_a_token_exactly_where_one_is_needed() -> None:
    async def scenario() -> None:
        async with server(access=AccessControl(TOKENS)) as here:
            document: Any = (await here.ask("GET", "/openapi.json", headers=bearer(TOKEN))).json
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    needed = path not in ("/healthz", "/readyz", "/health")
                    assert ("security" in operation) is needed
                    optional = {} in operation.get("security", [])
                    assert optional is (path == "/v1/images/{job_id}/{index}")
                    assert ("401" in operation["responses"]) is needed
        async with server() as here:
            document = (await here.ask("GET", "/openapi.json")).json
            assert "401" not in document["paths"]["/v1/models"]["get"]["responses"]

    run(scenario())


def test_beyond_loopback_tokens_and_tls_are_required_by_name() -> None:
    async def scenario(access: AccessControl) -> None:
        access.refuse_unprotected("0.0.0.0")

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for access, missing in (
        (AccessControl(), "set DARKROOM_TOKENS .* and DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY"),
        (AccessControl(TOKENS), "set DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY"),
        (AccessControl(None, tls), r"set DARKROOM_TOKENS \(darkroom token NAME FILE\), or"),
    ):
        with pytest.raises(Misconfigured, match=missing):
            run(scenario(access))
    run(scenario(AccessControl(TOKENS, tls)))


def test_a_gateway_beyond_loopback_does_not_start_unprotected() -> None:
    async def scenario() -> None:
        from services.gateway.app import HttpOptions, serving
        from shared.bus.memory import MemoryBroker
        from shared.telemetry.metrics import Metrics
        from tests.helpers import factories

        bus = MemoryBroker().connect("gateway")
        with pytest.raises(Misconfigured, match="the gateway would listen on"):
            async with serving(
                bus, factories.catalogue(), Metrics("gateway"), HttpOptions("0.0.0.0")
            ):
                pass

    run(scenario())


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert authority("::1", 8080) == "[::1]:8080"
    assert authority("127.0.0.1", 80) == "127.0.0.1:80"


def test_it_speaks_tls_with_the_certificate_it_was_given(tmp_path: Path) -> None:
    settings, authority = settings_of(tmp_path)

    async def scenario() -> None:
        trusted = ssl.create_default_context(cafile=str(authority))
        async with server(access=AccessControl.of(settings)) as here:
            url = f"https://{here.gateway.address}/healthz"
            async with aiohttp.ClientSession() as http:
                async with http.get(url, ssl=trusted) as reply:
                    assert reply.status == 200
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await http.get(url)
            await asyncio.sleep(0)

    run(scenario())


# ------------------------------------------------------------------------- files that are replaced


def settings_of(directory: Path, host: str = "gateway.example") -> tuple[Settings, Path]:
    """Of a gateway whose certificate and key are made anew, and the authority that signed it."""
    authority, [(certificate, key)] = issue([host], 1)
    for name, content in (("ca", authority), ("crt", certificate), ("key", key)):
        (directory / name).write_text(content)
    return Settings(http_cert=str(directory / "crt"), http_key=str(directory / "key")), (
        directory / "ca"
    )


def refresh(access: AccessControl) -> list[str]:
    for file in access.files:
        file.refresh()
    return access.troubles()


def test_tokens_that_are_added_and_taken_away_count_at_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    first = add_token(file, "alice")
    access = AccessControl.of(Settings(tokens=str(file)))

    async def scenario() -> None:
        async with server(access=access) as here:
            second = add_token(file, "bob")
            assert (await here.ask("GET", "/v1/models", headers=bearer(second))).status == 401
            assert refresh(access) == []
            assert (await here.ask("GET", "/v1/models", headers=bearer(second))).status == 200
            third = add_token(file, "alice")  # in place of the first
            assert refresh(access) == []
            for token, status in ((first, 401), (second, 200), (third, 200)):
                answer = await here.ask("GET", "/v1/models", headers=bearer(token))
                assert answer.status == status

    run(scenario())


def damaged(file: Path) -> None:
    file.write_text("alice: 12\n")


def emptied(file: Path) -> None:
    file.write_text("")


def removed(file: Path) -> None:
    file.unlink()


def shown_to_all(file: Path) -> None:
    file.chmod(0o644)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damaged, "tokens:1: allowed is"),
        (emptied, "holds no token"),
        (removed, "cannot be read: No such file"),
        (shown_to_all, "mode 644"),
    ],
)
def test_a_broken_file_of_tokens_leaves_the_old_ones_and_is_told_until_it_is_mended(
    tmp_path: Path, harm: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens"
    token = add_token(file, "alice")
    good = file.read_bytes()
    access = AccessControl.of(Settings(tokens=str(file)))
    harm(file)
    for _ in range(3):
        [trouble] = refresh(access)
    assert reason in trouble
    assert trouble.endswith("; the earlier content stays in effect")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert reason in caplog.text
    assert access.tokens is not None
    assert access.tokens.holder(f"Bearer {token}") == "alice"
    file.unlink(missing_ok=True)
    write_private(file, good)  # the same as before
    assert refresh(access) == []
    other = add_token(file, "bob")
    assert refresh(access) == []
    assert access.tokens.holder(f"Bearer {other}") == "bob"


async def certificate_of(here: Server) -> bytes | None:
    """What the gateway shows to a new connection."""
    host, port = here.gateway.address.split(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    found = connection.getpeercert(binary_form=True)
    writer.close()
    return found


def test_a_new_certificate_is_shown_to_new_connections_and_a_broken_one_never(
    tmp_path: Path,
) -> None:
    settings, _ = settings_of(tmp_path)
    certificate, key = tmp_path / "crt", tmp_path / "key"
    access = AccessControl.of(settings)

    async def scenario() -> None:
        async with server(access=access) as here:
            first = await certificate_of(here)
            assert first == ssl.PEM_cert_to_DER_cert(certificate.read_text())
            _, [(new, new_key)] = issue(["other.example"], 1)
            certificate.write_text(new)  # its key has not come yet
            [trouble] = refresh(access)
            assert "are no certificate and its key" in trouble
            assert await certificate_of(here) == first
            key.write_text(new_key)
            assert refresh(access) == []
            assert await certificate_of(here) == ssl.PEM_cert_to_DER_cert(new) != first
            # Of another kind: nothing of the one before may be left beside it.
            rsa_certificate, rsa_key = self_signed_rsa()
            certificate.write_text(rsa_certificate)
            key.write_text(rsa_key)
            assert refresh(access) == []
            assert await certificate_of(here) == ssl.PEM_cert_to_DER_cert(rsa_certificate)
            key.unlink()
            [trouble] = refresh(access)
            assert "No such file" in trouble
            assert await certificate_of(here) == ssl.PEM_cert_to_DER_cert(rsa_certificate)

    run(scenario())


def self_signed_rsa() -> tuple[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode(), _pem(key, NoEncryption())


def _pem(key: rsa.RSAPrivateKey, protection: KeySerializationEncryption) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection).decode()


def test_a_key_that_needs_a_password_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    settings, _ = settings_of(tmp_path)
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key").write_text(_pem(key, BestAvailableEncryption(b"secret")))
    with pytest.raises(Misconfigured, match="the key is encrypted"):
        AccessControl.of(settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(http_cert="a"), "set both DARKROOM_HTTP_CERT and DARKROOM_HTTP_KEY"),
        (Settings(http_cert="/no/such", http_key="/no/such"), "are no certificate and its key"),
        (Settings(tokens="/no/such"), "DARKROOM_TOKENS: /no/such cannot be read"),
        (Settings(cors_origins="studio.example"), "DARKROOM_CORS_ORIGINS: 'studio.example'"),
        (Settings(trusted_proxies="proxy"), "DARKROOM_TRUSTED_PROXIES: 'proxy'"),
    ],
)
def test_a_file_that_is_of_no_use_is_named_at_the_start(settings: Settings, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason):
        AccessControl.of(settings)


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
