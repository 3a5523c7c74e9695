"""What PEFT notes about a LoRA in its file: how strongly the product of its matrices counts."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from shared.errors import AdapterUnusable
from shared.models.files.safetensors_header import Header

_KEY: Final = "lora_adapter_metadata"
"""Where diffusers puts it."""
_QUANTIFIED: Final = re.compile(r"[*+?{]")
"""What could keep a pattern of a stranger's busy for ever."""


class Notes:
    """Of the adapter `name`, for each network."""

    def __init__(self, name: str, header: Header) -> None:
        """Raises `AdapterUnusable` if there are any, and they are not understood."""
        self._name = name
        try:
            noted = json.loads(header.metadata.get(_KEY) or "{}")
        except (ValueError, RecursionError) as error:
            raise AdapterUnusable(name, f"{_KEY} in its header is no JSON: {error}") from error
        if not isinstance(noted, dict):
            raise AdapterUnusable(name, f"{_KEY} in its header is no object")
        self._noted: Mapping[str, Any] = noted

    def scale(self, part: str, layer: str, rank: int, alpha: float | None) -> float:
        """alpha / rank, or alpha / √rank (rsLoRA, arXiv 2312.03732). `alpha`: the layer's own;
        without one, what was noted; else the rank."""
        if alpha is None:
            alpha = self._alpha(part, layer)
        root = math.sqrt(rank) if self._noted.get(f"{part}.use_rslora") else rank
        return (rank if alpha is None else alpha) / root

    def _alpha(self, part: str, layer: str) -> float | None:
        patterns = self._noted.get(f"{part}.alpha_pattern") or {}
        try:
            for pattern, alpha in patterns.items():
                if re.fullmatch(rf"(?:.*\.)?(?:{self._checked(pattern)})", layer):
                    return _number(alpha)
            common = self._noted.get(f"{part}.lora_alpha")
            return None if common is None else _number(common)
        except (AttributeError, TypeError, ValueError, re.error) as error:
            reason = f"{part}.lora_alpha and alpha_pattern in its header: {error}"
            raise AdapterUnusable(self._name, reason) from error

    def _checked(self, pattern: str) -> str:
        if _QUANTIFIED.search(pattern.replace(".*", "")) or pattern.count(".*") > 1:
            raise ValueError(f"the pattern {pattern!r} is not read")
        return pattern


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
