"""`--lora` takes names, paths, hub ids and addresses, with a scale behind any of them."""

import pytest

from services.fleet.cli.lora_option import parse_loras
from shared.errors import InvalidRequest
from shared.messages import LoraChoice

URL = "https://host:8443/neon.safetensors?v=1:2"
SUM = "ab" * 32


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("neon", LoraChoice(name="neon")),
        ("neon:-0.5", LoraChoice(name="neon", scale=-0.5)),
        ("neon.safetensors", LoraChoice(path="neon.safetensors")),
        ("/a/b.safetensors:2", LoraChoice(path="/a/b.safetensors", scale=2.0)),
        ("styles/ink", LoraChoice(path="styles/ink")),
        ("hub:owner/repo", LoraChoice(hub="owner/repo")),
        ("hub:owner/repo:0.8", LoraChoice(hub="owner/repo", scale=0.8)),
        ("hub:owner/repo@v1:a.safetensors", LoraChoice(hub="owner/repo@v1:a.safetensors")),
        ("https://host/x.safetensors:0.8", LoraChoice(url="https://host/x.safetensors", scale=0.8)),
        ("http://host:8000/x.safetensors", LoraChoice(url="http://host:8000/x.safetensors")),
        (f"{URL}#sha256={SUM}:1e-1", LoraChoice(url=URL, sha256=SUM, scale=0.1)),
        ("neon#partial", LoraChoice(name="neon", partial=True)),
        (
            f"neon#sha256={SUM}:0.5#partial",
            LoraChoice(name="neon", sha256=SUM, scale=0.5, partial=True),
        ),
        (f"neon#sha256={SUM}", LoraChoice(name="neon", sha256=SUM)),
    ],
)
def test_what_is_meant(text: str, choice: LoraChoice) -> None:
    assert parse_loras([text]) == (choice,)


@pytest.mark.parametrize("text", ["", ":0.5", "neon:loud", "hub:", "neon:0.5:0.5", "#sha256=ab"])
def test_what_is_nothing_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"LORA\[#sha256=HEX\]\[:SCALE\]"):
        parse_loras([text])
