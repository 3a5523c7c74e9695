"""Components loaded by diffusers and transformers, on pages that this host's processes share.

The libraries map the files that they read, and use what they mapped if it is of the right dtype:
then the weights of all processes lie on the same pages. What is of another dtype, or has to lie in
another order, becomes a copy in each of them. So what a library made of such a component is written
to a file once, and read from there (`cache.py`). Both libraries draw weights that a file lacks at
random, and leave out those that a network has no place for; here that is an error.
"""

import logging
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import torch

from shared.errors import Misconfigured
from shared.host.heap import hand_back
from shared.models.files.weights import variant_of
from shared.models.weights.cache import Wanted, WeightsCache
from shared.models.weights.component import MOST_PRIVATE, Component, stands_as_is
from shared.models.weights.layout import Layout
from shared.models.weights.pages import FilePages
from shared.models.weights.sharing import cache_of_process
from shared.models.weights.state import lay_out_as_written, weights_of, write_state

_LIBRARIES: Final = ("torch", "diffusers", "transformers", "safetensors")
"""What they make of a file may differ between their versions."""
_OF_DIFFUSERS: Final = "diffusion_pytorch_model.safetensors"
_OF_TRANSFORMERS: Final = "model.safetensors"
_Read = Callable[[str, str | None], Any]
"""Has a library read a component of a model; None: the model itself."""

log = logging.getLogger(__name__)


def load(
    kind: Any, source: str, folder: str | None, dtype: torch.dtype, layout: Layout | None = None
) -> Any:
    """Component `folder` of the model `source` (None: the model itself), as `kind` of diffusers,
    laid out like this. Raises `Misconfigured` if its weights are not those of its config, or
    whatever loading does."""

    def read(source: str, folder: str | None) -> Any:
        module, loading = _loaded(kind, source, folder, dtype)
        if strange := loading.get("unexpected_keys"):
            raise Misconfigured(
                f"the config of {folder or source} has no place for its weights {_some(strange)}"
            )
        return module

    return _Loading(read, kind.__name__, _OF_DIFFUSERS, dtype, layout).load(source, folder)


def load_of_transformers(kind: Any, source: str, folder: str, dtype: torch.dtype) -> Any:
    """As `load`, of transformers. Its files may have more than it has a place for, such as a vision
    tower that it was trained with."""

    def read(source: str, folder: str | None) -> Any:
        # Else it says no more than that shapes differ.
        module, loading = _loaded(kind, source, folder, dtype, ignore_mismatched_sizes=True)
        if others := loading.get("mismatched_keys"):
            shown = _some(
                f"{key} is {tuple(has)}, not {tuple(wanted)}" for key, has, wanted in others
            )
            raise Misconfigured(f"the weights of {folder} do not fit its config: {shown}")
        return module

    return _Loading(read, kind.__name__, _OF_TRANSFORMERS, dtype, None).load(source, folder)


@dataclass(frozen=True, slots=True)
class _Loading:
    """A component in one form; `file_name`: what its library calls files of weights."""

    read: _Read
    kind: str
    file_name: str
    dtype: torch.dtype
    layout: Layout | None

    def load(self, source: str, folder: str | None) -> Any:
        cache, component = cache_of_process(), Component.of(source, folder or "")
        headers = None if component is None else component.headers()
        if cache is None or component is None or headers is None or sys.platform != "linux":
            return self._laid_out(source, folder)
        wanted = Wanted(component, component.state(), self._form, _made_by())
        if (found := self._kept(cache, wanted)) is not None:
            return found
        module = None
        if stands_as_is(headers, self._dtype_name, self.layout):
            module = self._laid_out(source, folder)
            if _is_mapped(module):
                return module
        with cache.writing(wanted):
            if (found := self._kept(cache, wanted)) is not None:
                return found  # somebody else wrote it meanwhile
            if module is None:
                module = self._laid_out(source, folder)
            names = frozenset(key for header in headers for key in header.keys)
            if not self._keep(cache, wanted, module, names):
                return module
            del module
            hand_back()
            if (found := self._kept(cache, wanted)) is not None:
                return found
        return self._laid_out(source, folder)

    def _laid_out(self, source: str, folder: str | None) -> Any:
        module = self.read(source, folder)
        if self.layout is not None:
            self.layout.apply(module)
        return module

    def _kept(self, cache: WeightsCache, wanted: Wanted) -> Any | None:
        """As the cache has it; None if it has not, or what it has cannot be read."""
        entry = cache.find(wanted)
        if entry is None:
            return None
        try:
            module = self.read(str(entry.directory), None)
            lay_out_as_written(module, entry.weights)
        except Exception as error:  # whatever the libraries raise; the component's files are there
            log.warning("converted weights %s cannot be read: %s", wanted.key, error)
            entry.file.close()
            return None
        if self.layout is not None:
            self.layout.apply(module)
        weakref.finalize(module, entry.file.close).atexit = False
        return module

    def _keep(
        self, cache: WeightsCache, wanted: Wanted, module: Any, names: frozenset[str]
    ) -> bool:
        nbytes = sum(weight.nbytes for weight in weights_of(module))
        write = partial(write_state, module=module, names=names)
        return cache.keep(wanted, self.file_name, nbytes, write)

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def _form(self) -> str:
        layout = () if self.layout is None else (self.layout.name,)
        return "-".join((self.kind, self._dtype_name, *layout))


def _made_by() -> str:
    return ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)


def _is_mapped(module: Any) -> bool:
    """Whether nearly all weights of `module` lie on pages of files."""
    pages, weights = FilePages.mapped(), list(weights_of(module))
    return pages.private_bytes(weights) <= MOST_PRIVATE * sum(one.nbytes for one in weights)


def _loaded(
    kind: Any, source: str, folder: str | None, dtype: torch.dtype, **settings: Any
) -> tuple[Any, dict[str, Any]]:
    """Also what the library tells of the weights."""
    where = {} if folder is None else {"subfolder": folder}
    module, loading = kind.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=True,
        variant=variant_of(source, folder or ""),
        output_loading_info=True,
        **where,
        **settings,
    )
    if lacking := loading.get("missing_keys"):
        raise Misconfigured(f"the weights of {folder or source} lack {_some(lacking)}")
    return module, loading


def _some(keys: Iterable[str]) -> str:
    """The first of them by name, and how many more there are."""
    first, *others = sorted(map(str, keys))
    return f"{first} and {len(others)} more" if others else first
