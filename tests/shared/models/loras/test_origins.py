"""Where a LoRA may come from: what requests may name, and what operators allow."""

from pathlib import Path

import msgspec
import pytest
from yarl import URL

from shared.errors import InvalidRequest, Misconfigured
from shared.messages import LoraChoice, decode, encode
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.loras.sources.hosts import Hosts, parse_url
from shared.models.loras.sources.origins import check, label

HUB = "https://huggingface.co"
NOWHERE = Hosts()
SOME = Hosts.parse(["files.example.org", "*.hf.co", "huggingface.co", "http://10.0.0.7:8000"], HUB)


@pytest.fixture
def lora_directory(tmp_path: Path) -> LoraDirectory:
    inside, outside = tmp_path / "shelf", tmp_path / "outside"
    (inside / "styles").mkdir(parents=True)
    outside.mkdir()
    for path in (inside / "neon", inside / "styles" / "ink", outside / "secret"):
        path.with_suffix(".safetensors").touch()
    (inside / "notes.txt").touch()
    (inside / "link.safetensors").symlink_to(outside / "secret.safetensors")
    (inside / "door").symlink_to(outside)
    return LoraDirectory((str(tmp_path / "nowhere"), str(inside)))


@pytest.mark.parametrize(
    "given",
    [
        {"name": "neon"},
        {"path": "neon.safetensors"},
        {"path": "styles/ink.safetensors", "sha256": "aB" * 32},
        {"path": "styles/../neon.safetensors"},
        {"name": "link"},
        {"path": "link.safetensors"},
        {"path": "door/secret.safetensors"},
        {"hub": "owner/repo"},
        {"hub": "owner/repo:styles/neon.safetensors"},
        {"hub": "owner/repo@v1.0"},
        {"url": "https://files.example.org/neon.safetensors?token=1"},
        {"url": "https://cdn.hf.co:443/neon.safetensors"},
        {"url": "http://10.0.0.7:8000/neon.safetensors"},
    ],
)
def test_what_may_be_named(lora_directory: LoraDirectory, given: dict[str, str]) -> None:
    check(LoraChoice(**given), lora_directory, SOME)  # type: ignore[arg-type]


def test_a_path_may_be_absolute(lora_directory: LoraDirectory) -> None:
    inside = Path(lora_directory.directories[1])
    check(LoraChoice(path=str(inside / "styles" / "ink.safetensors")), lora_directory, NOWHERE)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, "exactly one of name, path, hub, url"),
        ({"name": "neon", "url": "https://files.example.org/x"}, "exactly one of"),
        ({"name": "neon", "sha256": "abc"}, "64 hexadecimal digits"),
        ({"name": "styles/ink"}, "one of link, neon"),
        ({"path": "../outside/secret.safetensors"}, "below the server's LoRA directories"),
        ({"path": "/etc/passwd"}, "below the server's"),
        ({"path": "notes.txt"}, "below the server's"),
        ({"path": "styles"}, "below the server's"),
        ({"path": ""}, "below the server's"),
        ({"path": "\0.safetensors"}, "below the server's"),
        ({"path": "a" * 5000 + ".safetensors"}, "below the server's"),
        ({"hub": "repo"}, "owner/repo"),
        ({"hub": "../repo"}, "owner/repo"),
        ({"hub": "owner/repo:neon.bin"}, "owner/repo"),
        ({"hub": "owner/repo:../../api/x.safetensors"}, "owner/repo"),
        ({"url": "file:///etc/passwd"}, "an http or https address"),
        ({"url": "https://me:secret@files.example.org/x"}, "without user"),
        ({"url": "https://files.example.org/x#part"}, "without user or #"),
        ({"url": "https://files.example.org/" + "x" * 3000}, "2048 characters"),
        ({"url": "https://files.example.org/a b"}, "an http or https address"),
        ({"url": "https://exämple.org/x"}, "an http or https address"),
        ({"url": "http://files.example.org/x"}, "LoRAs from https://files.example.org, "),
        ({"url": "https://files.example.org:8443/x"}, "LoRAs from"),
        ({"url": "https://files.example.org.evil.net/x"}, "LoRAs from"),
        ({"url": "https://evil.net/files.example.org"}, "LoRAs from"),
        ({"url": "https://hf.co/x"}, "LoRAs from"),
        ({"url": "https://evilhf.co/x"}, "LoRAs from"),
        ({"url": "http://127.0.0.1:8222/varz"}, "LoRAs from"),
    ],
)
def test_what_may_not_be_named_is_refused_with_what_may(
    lora_directory: LoraDirectory, given: dict[str, str], allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(LoraChoice(**given), lora_directory, SOME)  # type: ignore[arg-type]
    assert caught.value.fields["field"] == "loras"
    assert allowed in str(caught.value.fields["allowed"])


def test_nothing_is_fetched_unless_the_operator_says_from_where(
    lora_directory: LoraDirectory,
) -> None:
    for given in ({"hub": "owner/repo"}, {"url": "https://huggingface.co/x"}):
        with pytest.raises(InvalidRequest, match="it fetches none"):
            check(LoraChoice(**given), lora_directory, NOWHERE)  # type: ignore[arg-type]
    elsewhere = Hosts.parse(["files.example.org"], HUB)
    with pytest.raises(InvalidRequest, match="not the model hub"):
        check(LoraChoice(hub="owner/repo"), lora_directory, elsewhere)


@pytest.mark.parametrize("text", ["ftp://x", "a b", "host:0", "host:99999", "http://h/path", "*"])
def test_a_host_that_is_none_names_its_variable(text: str) -> None:
    with pytest.raises(Misconfigured, match="DARKROOM_LORA_HOSTS"):
        Hosts.parse([text], HUB)


@pytest.mark.parametrize("text", ["https://[::1]/x", "https://h:99999/x", "https://", "https:///x"])
def test_odd_addresses_are_never_allowed(text: str) -> None:
    url = parse_url(text)
    assert url is None or not SOME.allow(url)
    assert isinstance(url, URL | None)


def test_labels_are_short_and_tell_apart() -> None:
    assert label(LoraChoice(name="neon")) == "neon"
    assert label(LoraChoice(path="styles/ink.safetensors")) == "styles/ink"
    assert label(LoraChoice(hub="owner/repo")) == "owner/repo"
    urls = [f"https://files.example.org/{k}/neon.safetensors?token=secret" for k in range(2)]
    labels = [label(LoraChoice(url=url)) for url in urls]
    assert len(set(labels)) == 2
    assert all(text.startswith("files.example.org/neon.safetensors#") for text in labels)
    assert not any("secret" in text for text in labels)
    long = [label(LoraChoice(url=f"https://h.org/{k}{'x' * 300}.safetensors")) for k in range(2)]
    assert len(set(long)) == 2
    assert all(len(text) <= 64 for text in long)


def test_a_choice_by_name_is_on_the_wire_as_it_always_was() -> None:
    old = msgspec.msgpack.encode({"name": "neon", "scale": 0.5})
    assert decode(old, LoraChoice) == LoraChoice(name="neon", scale=0.5)
    assert encode(LoraChoice(name="neon", scale=0.5)) == old
