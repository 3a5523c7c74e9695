"""Service classes: how urgent a job is. What else knows of them reads them here."""

from typing import Final, Literal, get_args

ServiceClass = Literal["interactive", "standard", "batch"]
CLASSES: Final[tuple[ServiceClass, ...]] = get_args(ServiceClass)
"""The most urgent first: the order in which workers pull, and in which rows take steps."""
URGENT: Final = CLASSES[0]
"""Its work is taken above a worker's capacity."""
DEFAULT_CLASS: Final[ServiceClass] = "standard"
"""Of a job that names none."""
ALLOWED: Final = " or ".join([", ".join(f'"{one}"' for one in CLASSES[:-1]), f'"{CLASSES[-1]}"'])


def service_class(name: str) -> ServiceClass:
    """The one of this name. Raises `ValueError`."""
    return CLASSES[CLASSES.index(name)]
