"""Networks of diffusers, imported without what a service has no use for.

A network is one module, but to import it brings every other network of its kind, the compiler
(`torch._dynamo`, sympy), and the libraries that pipelines and training need. A process that only
computes with what it loads is up in half of the seconds, and a third smaller, without. It says so
once, before it imports the first network; nothing is taken away for good: a package whose
own code was left out runs it as soon as somebody asks for one of its names.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

COMPILER: Final = "torch._dynamo"
PACKAGES: Final = tuple(
    f"diffusers.models.{kind}" for kind in ("autoencoders", "controlnets", "transformers", "unets")
)
"""They import all that is in them."""
UNUSED: Final = ("peft", "scipy", "transformers")
"""What diffusers would import for pipelines and training, and services have no use for there."""


class _Sparse(ModuleType):
    """A package of which only modules that are asked for by their full names are imported."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        whole: Any = self
        whole.__class__ = ModuleType
        spec.loader.exec_module(whole)
        return getattr(whole, name)


def lean_diffusers() -> None:
    """Networks of diffusers come alone from now on, and diffusers does not know that the packages
    of `UNUSED` are installed. For the life of the process."""
    if "diffusers.models.modeling_utils" in sys.modules:
        return  # everything is there already
    with (
        _hidden(COMPILER, *UNUSED),
        _uncompiled(),
        patch.object(importlib.metadata, "distributions", lambda: iter(())),
    ):
        known = importlib.import_module("diffusers.utils.import_utils")
        for package in UNUSED:
            setattr(known, f"_{package}_available", False)
        for package in PACKAGES:
            _leave_out(package)
        importlib.import_module("diffusers.loaders.single_file_model")
        importlib.import_module("diffusers.loaders.peft")


def _leave_out(package: str) -> None:
    """Be as if `package` were imported, without having run its code."""
    if package in sys.modules:
        return  # with all that it brings
    spec = importlib.util.find_spec(package)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Sparse
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    setattr(sys.modules[parent], name, module)


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Who imports one of `packages` meanwhile is told that it is not installed."""
    absent = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in absent:
            del sys.modules[package]


@contextmanager
def _uncompiled() -> Iterator[None]:
    """What is to be kept from the compiler meanwhile is left as it is: nothing is compiled here,
    and to mark it would import the compiler."""
    import torch

    with patch.object(torch.compiler, "disable", _unmarked):
        yield


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """`torch.compiler.disable`, with arguments of its own or without."""
    return function if function is not None else lambda function: function
