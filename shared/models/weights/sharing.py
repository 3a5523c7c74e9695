"""Where this process keeps converted weights, for all that it loads: set once, as torch's number of
threads is."""

import logging
from collections.abc import Sequence
from pathlib import Path

from shared.errors import Misconfigured
from shared.models.weights.cache import WeightsCache
from shared.models.weights.component import Component

log = logging.getLogger(__name__)

_caches: list[WeightsCache] = []
"""One, or none."""


def share_weights(directory: Path, max_bytes: int) -> None:
    """From now on, keep converted weights in `directory`, at most `max_bytes`; 0: keep none. What
    cannot be kept there, each process has for itself."""
    _caches.clear()
    if not max_bytes:
        return
    try:
        _caches.append(WeightsCache(directory, max_bytes))
    except Misconfigured as error:
        log.warning(
            "converted weights are not shared with other processes (DARKROOM_WEIGHTS_DIR): %s",
            error,
        )


def cache_of_process() -> WeightsCache | None:
    return _caches[0] if _caches else None


def files_to_read(source: str, folders: Sequence[str], dtype: str) -> list[Path]:
    """What is mapped when these components of the model in `source` are loaded as torch's `dtype`,
    as far as it is on this host: their weights as they were converted, else as they are."""
    cache, found = cache_of_process(), list[Path]()
    for folder in folders:
        component = Component.of(source, folder)
        if component is not None:
            converted = cache and cache.converted(component, dtype)
            found += [converted] if converted else component.files
    return found
