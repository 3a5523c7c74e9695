"""Copies of the models that ship, with other settings, for what only reads files of theirs."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from shared.shipped import MODELS

EMPTY = (2).to_bytes(8, "little") + b"{}"
"""A file of safetensors without any."""
SDXL, FLUX = MODELS["pocket-sdxl"], MODELS["pocket-flux"]


def copied(
    target: Path,
    changes: Mapping[str, Mapping[str, Any] | None] | None = None,
    source: str = SDXL,
    weights: bool = False,
) -> str:
    """A copy of the model in `source` at `target`, with these fields in its JSON files; None: the
    file is left out. Without `weights` each of its weights' files is nearly empty."""
    ignored = None if weights else shutil.ignore_patterns("*.safetensors")
    shutil.copytree(source, target, ignore=ignored)
    if not weights:
        for file in Path(source).glob("*/*.safetensors"):
            (target / file.relative_to(source)).write_bytes(EMPTY)
    for name, fields in (changes or {}).items():
        path = target / name
        if fields is None:
            path.unlink()
        else:
            known = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps({**known, **fields}))
    return str(target)


def rescheduled(
    target: Path,
    config: Mapping[str, Any],
    source: str = SDXL,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """A copy with this scheduler config alone, and these settings beside it."""
    model = copied(target, {"darkroom.json": None}, source)
    (target / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    if settings is not None:
        (target / "darkroom.json").write_text(json.dumps(settings))
    return model


def with_weight(target: Path, folder: str, key: str, value: float, source: str = SDXL) -> str:
    """A copy with its weights, one of which is `value`."""
    model = copied(target, source=source, weights=True)
    [path] = (target / folder).glob("*.safetensors")
    tensors = load_file(path)
    tensors[key].view(-1)[0] = value
    save_file(tensors, path, {"format": "pt"})
    return model
