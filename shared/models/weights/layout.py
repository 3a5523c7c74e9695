"""How a network has its weights lie in memory, where it is not as in their files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.models.files.safetensors_header import Shape


@dataclass(frozen=True, slots=True)
class Layout:
    """`name`: stands for it in names of files. `changes`: whether it lays out weights of a shape in
    another way than files do. `apply`: lays out those of a module, in place; what is laid out so
    already is not copied."""

    name: str
    changes: Callable[[Shape], bool]
    apply: Callable[[Any], object]
