"""The features that rows can have in a denoiser: the one place that lists them."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from services.denoiser.cfg_parallel.remote import CfgWorker, RemoteBranches
from services.denoiser.cfg_parallel.split import CfgParallel
from services.denoiser.controlnet.client import ControlNets
from services.denoiser.controlnet.exchange import ResidualExchange
from services.denoiser.controlnet.feature import Controls
from services.denoiser.engine.engine import Engine
from services.denoiser.engine.occupation import Occupation
from services.denoiser.forward.predictors import Predictor
from services.denoiser.loras.feature import Loras
from services.denoiser.loras.predictor import LoraWeights
from services.denoiser.loras.products import Preparation
from services.denoiser.mask_cache.feature import MaskCaches
from services.denoiser.mask_cache.lookup import CacheLookup
from services.denoiser.mask_cache.predictor import MaskedSteps
from services.denoiser.mask_cache.store import ActivationStore
from services.denoiser.rows.feature import RowFeature
from shared.models.catalogue import Catalogue
from shared.models.contracts.family import Family
from shared.models.contracts.network import MaskedNetwork, Network
from shared.models.loras.libraries import AdapterLibraries
from shared.process.process import Process
from shared.tensors.transport import Transport


@dataclass(frozen=True, slots=True)
class ModelFeatures:
    predictors: tuple[Predictor, ...]
    """The first that applies takes the step."""
    rows: tuple[RowFeature, ...]
    """In the order in which they extend a row."""


class Features:
    """What the models of one process share. To be made in its event loop."""

    def __init__(
        self,
        running: Process,
        transport: Transport,
        catalogue: Catalogue,
    ) -> None:
        settings, bus, metrics = running.settings, running.bus, running.metrics
        self._running, self._transport = running, transport
        self._controls = ControlNets(bus, transport, settings.control_seconds)
        self._libraries = AdapterLibraries(
            catalogue.lora_directory, settings, metrics, running.loader
        )
        self._conditioning: dict[str, Collection[str]] = {}
        self._store: ActivationStore | None = None
        self.occupation = Occupation()
        self._cfg_worker = CfgWorker(bus, transport, self.occupation)

    def of_model(self, name: str, family: Family, network: Network) -> ModelFeatures:
        """Those of the model of this name, whose network was loaded just now."""
        running = self._running
        library = self._libraries.add(name, family, network.check, (family.denoiser,))
        rows: tuple[RowFeature, ...] = (Loras(library), Controls())
        store = self._store_for(family)
        if store is not None and isinstance(network, MaskedNetwork):
            lookup = CacheLookup(store, family, network, running.loader)
            rows = (*rows, MaskCaches(lookup, family.rounds_up))
        branches = RemoteBranches(running.bus, self._transport, name)
        predictors = (
            LoraWeights(network, Preparation(network, running.loader, running.settings.lora_bytes)),
            ResidualExchange(self._controls),
            CfgParallel(branches, given=lambda: self._cfg_worker.halves[name]),
            MaskedSteps(),
        )
        self._conditioning[name] = family.conditioning
        return ModelFeatures(predictors, rows)

    async def help_others(self, name: str, engine: Engine) -> None:
        """Compute for others while that model's engine is idle, for as long as this runs."""
        await self._cfg_worker.serve(name, self._conditioning[name], engine.when_idle)

    def forget(self, name: str) -> None:
        """The model of this name is held here no more."""
        self._libraries.remove(name)
        del self._conditioning[name]

    def _store_for(self, family: Family) -> ActivationStore | None:
        """That of this host; None if the family has no use for it, or it may hold nothing."""
        settings, metrics = self._running.settings, self._running.metrics
        if self._store is None and family.masks and settings.template_bytes > 0:
            self._store = ActivationStore(
                settings.template_memory,
                settings.template_dir,
                settings.template_bytes,
                settings.template_disk_bytes,
            )
            metrics.watch_cache("templates", self._store.in_memory)
            metrics.watch_cache("spilled_templates", self._store.on_disk)
        return self._store if family.masks else None

    def statistics(self) -> Mapping[str, object]:
        """But for what the predictors count."""
        store = self._store
        return {
            **self._libraries.statistics(),
            "templates": None if store is None else asdict(store.statistics()),
            "control_retries": self._controls.retries,
        }
