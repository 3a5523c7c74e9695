"""The models and add-ons that ship with the code; found wherever a process runs. No torch here."""

from pathlib import Path
from typing import Final

import pocket

_FOLDER: Final = Path(pocket.__file__).parent / "models"

MODELS: Final = {file.parent.name: str(file.parent) for file in _FOLDER.glob("*/model_index.json")}
"""Directories by name."""
DEFAULT_MODEL: Final = str(_FOLDER / "pocket-sdxl")
DEFAULT_LORAS: Final = str(_FOLDER / "loras")
"""The directory of the LoRAs for it."""
DEFAULT_CONTROLS: Final = str(_FOLDER / "controls")
"""The folder of the ControlNets for it."""


def located(source: str) -> str:
    """A directory, or the name of a model that ships, as an absolute path, since services may run
    elsewhere; a directory of that name goes first. Hub ids as they are."""
    if Path(source).is_dir():
        return str(Path(source).resolve())
    return MODELS.get(source, source)
