"""The small JSON files of a model in diffusers' layout."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from shared.errors import DarkroomError, Misconfigured

log = logging.getLogger(__name__)


def is_hub_id(source: str) -> bool:
    """Whether `source`, which is no directory, reads as `OWNER/NAME`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None


def local_directory(source: str) -> Path:
    """Where the small JSON files of the model `source` lie: itself, or the hub's local copy."""
    return Path(source) if Path(source).is_dir() else _fetched(source)


@cache
def _fetched(source: str) -> Path:
    """Once a process: files of one model that come of two revisions would not fit together."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*/*.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise Misconfigured(
            f"model {source!r} is neither a directory nor a hub id that can be fetched: {error}"
        ) from error


def read_json(source: str, *path: str) -> dict[str, Any]:
    """The file at `path` in the directory (or hub id) `source`. Raises `Misconfigured`."""
    try:
        text = local_directory(source).joinpath(*path).read_text(encoding="utf-8")
        content: dict[str, Any] = json.loads(text)
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"model {source!r} is not a diffusers directory: {path[-1]}: {error}"
        ) from error
    if not isinstance(content, dict):
        raise Misconfigured(f"model {source!r} is not a diffusers directory: {path[-1]}: no object")
    return content


def config_of(source: str, folder: str) -> dict[str, Any]:
    """`config.json` of a component; empty if there is none."""
    if not (local_directory(source) / folder / "config.json").is_file():
        return {}
    return read_json(source, folder, "config.json")


def scheduler_config(source: str) -> dict[str, Any]:
    """Of the model `source`, with the name of its class, which may be in `model_index.json`
    alone; where both have one, the config's own counts. Raises `Misconfigured`."""
    config = read_json(source, "scheduler", "scheduler_config.json")
    named = read_json(source, "model_index.json").get("scheduler")
    kind = named[1] if isinstance(named, list) and len(named) == 2 else None
    own = config.get("_class_name", kind)
    if kind is not None and kind != own:
        log.warning(
            "%s: the scheduler's own config, a %s, goes before model_index.json, which names a %s",
            source,
            own,
            kind,
        )
    return config | {"_class_name": own}


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Raises `Misconfigured` for whatever goes wrong within while the weights of `what` are loaded:
    the libraries that do it raise anything."""
    try:
        yield
    except DarkroomError:
        raise
    except Exception as error:
        log.exception("%s cannot be loaded", what)
        reason = f"{type(error).__name__}: {error}"
        raise Misconfigured(f"{what} cannot be loaded (--model): {reason}") from error
