"""The adapters of all models of one process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from shared.config import Settings
from shared.models.contracts.family import Family
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.loras.sources.fetch import Fetcher
from shared.models.lowrank.weights import Adapter
from shared.residency.loader import Loader
from shared.telemetry.metrics import Metrics


class AdapterLibraries:
    """One for each model, which read the same files."""

    def __init__(
        self, directory: LoraDirectory, settings: Settings, metrics: Metrics, loader: Loader
    ) -> None:
        self._files = LoraFiles(directory, Fetcher.of(settings))
        self._max_bytes, self._metrics, self._loader = settings.lora_bytes, metrics, loader
        self._libraries: dict[str, AdapterLibrary] = {}
        metrics.watch_cache("fetched_loras", self._files.reading)

    def add(
        self, model: str, family: Family, check: Callable[[Adapter], None], parts: Sequence[str]
    ) -> AdapterLibrary:
        """That of a model of this name; `check` and `parts` as in `AdapterLibrary`."""
        library = AdapterLibrary(self._files, family, check, self._max_bytes, self._loader, parts)
        self._metrics.watch_cache("loras", library.reading, model)
        self._libraries[model] = library
        return library

    def remove(self, model: str) -> None:
        """The model of this name is held here no more."""
        del self._libraries[model]

    def statistics(self) -> Mapping[str, object]:
        """Of what is in memory, by model, and of what was fetched."""
        return {
            "loras": {model: asdict(one.statistics()) for model, one in self._libraries.items()},
            "fetched_loras": asdict(self._files.statistics()),
        }
