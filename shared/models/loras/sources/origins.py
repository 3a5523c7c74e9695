"""Where a request says that a LoRA is: in a LoRA directory by its name, below one by its path, on
the model hub, at an address. No torch here: planners and gateways check it."""

import hashlib
import re
from typing import Final

import msgspec

from shared.errors import InvalidRequest
from shared.messages import LoraChoice
from shared.models.loras.sources.directory import SUFFIX, LoraDirectory
from shared.models.loras.sources.hosts import MAX_URL, Hosts, parse_url

KINDS: Final = ("name", "path", "hub", "url")
"""Fields of a choice of which it has exactly one."""
SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
MAX_LABEL: Final = 64
_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_HUB: Final = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}))?"
    rf"(?::(?P<file>(?:{_PART}/)*{_PART}\.safetensors))?"
)
_HUB_FORM: Final = "owner/repo, owner/repo:file.safetensors, or owner/repo@revision:…"


class HubId(msgspec.Struct, frozen=True):
    """A file of a repository. `file` empty: the only one there, or diffusers' own name for it."""

    repo: str
    revision: str
    file: str


def check(choice: LoraChoice, lora_directory: LoraDirectory, hosts: Hosts) -> None:
    """Raises `InvalidRequest` about `loras` if `choice` names no LoRA, or one that is not to be had
    here."""
    given = {kind: value for kind in KINDS if (value := getattr(choice, kind)) is not None}
    if len(given) != 1:
        allowed = f"exactly one of {', '.join(KINDS)} for each"
        raise InvalidRequest("loras", given or "neither", allowed)
    if choice.sha256 is not None and not SHA256.fullmatch(choice.sha256):
        raise InvalidRequest("loras", choice.sha256, "a sha256 of 64 hexadecimal digits")
    if choice.name is not None:
        lora_directory.find(choice.name)
    elif choice.path is not None:
        lora_directory.below(choice.path)
    elif choice.hub is not None:
        _check_hub(choice.hub, hosts)
    elif choice.url is not None:
        _check_url(choice.url, hosts)


def hub_id(text: str) -> HubId | None:
    """`text` as a hub id, `owner/repo[@revision][:file.safetensors]`; None if it is none."""
    match = _HUB.fullmatch(text)
    if match is None or ".." in text:
        return None
    return HubId(match["repo"], match["revision"] or "main", match["file"] or "")


def label(choice: LoraChoice) -> str:
    """What to call the adapter: short, and the same for no two choices that are not the same."""
    if choice.url is not None:
        url = parse_url(choice.url)
        shown = f"{url.host}/{url.name}" if url is not None else "url"
        return _short(f"{shown}#{_digest(choice.url)[:6]}")
    return _short(choice.name or choice.hub or (choice.path or "").removesuffix(SUFFIX))


def _check_hub(text: str, hosts: Hosts) -> None:
    if not hosts.allow_hub:
        raise InvalidRequest("loras", text, f"{_others(hosts)}, not the model hub")
    if hub_id(text) is None:
        raise InvalidRequest("loras", text, _HUB_FORM)


def _check_url(text: str, hosts: Hosts) -> None:
    url = parse_url(text)
    if url is None:
        allowed = f"an http or https address of up to {MAX_URL} characters, without user or #"
        raise InvalidRequest("loras", text, allowed)
    if not hosts.allow(url):
        raise InvalidRequest("loras", text, _others(hosts))


def _others(hosts: Hosts) -> str:
    """Where LoRAs may come from, in words."""
    if not hosts.entries:
        return "LoRAs of the server: it fetches none"
    return f"LoRAs from {hosts}"


def _short(text: str) -> str:
    if len(text) <= MAX_LABEL:
        return text
    return f"…{text[-48:].split('#')[0]}#{_digest(text)[:6]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
