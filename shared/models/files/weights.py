"""A component's weights: which of several precisions is loaded, by the names of its files.

diffusers and transformers call files `model.safetensors`, or `model.fp16.safetensors` and the like,
and look for one kind only: a repository with the others alone would not load.
"""

import logging
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from shared.errors import Misconfigured
from shared.models.files.directory import read_json
from shared.models.files.safetensors_header import FLOATING, NotSafetensors, read_header

SUFFIX: Final = ".safetensors"
VARIANTS: Final = ("fp16", "bf16", "fp32")
"""That are read where there are no plain weights, the first one first. What else there may be (such
as `non_ema`) are other weights."""
log = logging.getLogger(__name__)

_INDEXES: Final = "position_ids"
"""What text encoders' files may have that are no weights."""
_SHARD: Final = re.compile(r"-\d+-of-\d+$")


def variant_of(source: str, folder: str = "") -> str | None:
    """What to load component `folder` of the model (or ControlNet) `source` as; None: plainly.
    Raises `Misconfigured` if its weights are of another kind."""
    root = Path(source)
    names = _here(root / folder) if root.is_dir() else _on_the_hub(source, folder)
    found = {_variant(name) for name in names}
    if not found or None in found:
        return None
    for variant in VARIANTS:
        if variant in found:
            return variant
    raise Misconfigured(
        f"{source}: the weights in {folder or '.'}/ are {', '.join(sorted(map(str, found)))}; read "
        f"are plain ones and {', '.join(VARIANTS)}"
    )


def refuse_damaged(source: str, folder: str = "") -> None:
    """Raises `Misconfigured` naming the first file of component `folder` of the model in directory
    `source` that is not whole, or the first tensor in it that is quantized."""
    component, variant = Path(source) / folder, variant_of(source, folder)
    for name in sorted(_here(component)):
        if _variant(name) != variant:
            continue
        try:
            header = read_header(component / name)
        except (NotSafetensors, OSError) as error:
            raise Misconfigured(f"{folder}/{name} of {source!r} cannot be read: {error}") from error
        for key, kind in header.kinds.items():
            if kind not in FLOATING and not key.endswith(_INDEXES):
                raise Misconfigured(
                    f"{folder}/{name} of {source!r}: {key} is {kind}; read are weights of "
                    + ", ".join(sorted(FLOATING))
                )
    for index in component.glob(f"*{SUFFIX}.index*.json"):
        files = read_json(str(component), index.name).get("weight_map")
        if not isinstance(files, dict):
            raise Misconfigured(f"{folder}/{index.name} of {source!r} has no weight_map")
        for name in sorted(map(str, files.values())):
            if _variant(name) == variant and not (component / name).is_file():
                raise Misconfigured(f"{folder}/{name} of {source!r} is not there")


def weight_bytes(component: Path) -> int:
    """Size of the weights in a component's directory, as they lie there. Weights in several
    precisions count once: those that are loaded, or all if none are."""
    return sum(file.stat().st_size for file in chosen(component))


def loaded_bytes(component: Path, dtype: str) -> int:
    """Size of those weights as torch's `dtype`. A file that cannot be read counts as it lies
    there: loading it says what is wrong."""
    total = 0
    for file in chosen(component):
        try:
            header = read_header(file)
        except (NotSafetensors, OSError):
            total += file.stat().st_size
        else:
            total += sum(header.nbytes(key, dtype) for key in header.keys)
    return total


def chosen(component: Path) -> list[Path]:
    """The files in a component's directory that its weights are loaded from, of those in several
    precisions; all if none are."""
    files = [component / name for name in sorted(_here(component))]
    for variant in (None, *VARIANTS):
        if own := [file for file in files if _variant(file.name) == variant]:
            return own
    return files


def _variant(name: str) -> str | None:
    """`diffusion_pytorch_model.fp16-00001-of-00002.safetensors` is "fp16"."""
    _, _, variant = _SHARD.sub("", name.removesuffix(SUFFIX)).partition(".")
    return variant or None


def _here(directory: Path) -> list[str]:
    return [path.name for path in directory.glob(f"*{SUFFIX}")]


def _on_the_hub(source: str, folder: str) -> list[str]:
    """Of its local copy if that has this component already, else of the hub itself."""
    for paths in (_copied, _listed):
        wanted = [one for one in map(PurePosixPath, paths(source)) if one.suffix == SUFFIX]
        if own := [one.name for one in wanted if one.parent == PurePosixPath(folder)]:
            return own
    return []


@cache
def _copied(source: str) -> tuple[str, ...]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        root = Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return ()
    return tuple(path.relative_to(root).as_posix() for path in root.rglob(f"*{SUFFIX}"))


@cache
def _listed(source: str) -> tuple[str, ...]:
    from huggingface_hub import HfApi

    try:
        return tuple(HfApi().list_repo_files(source))
    except Exception as error:  # those of whichever HTTP library it uses
        log.warning("the files of %s cannot be listed, plain weights are tried: %s", source, error)
        return ()
