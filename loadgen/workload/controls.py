"""The control images of requests: read before a run, and kept while it lasts."""

import functools
from typing import Final

from loadgen.workload.workload import Workload
from shared.media.control_files import read_controls
from shared.messages import ControlChoice

MAX_KEPT: Final = 256
"""Different lists of controls whose images are kept; of more, some are read again."""


@functools.lru_cache(maxsize=MAX_KEPT)
def choices(controls: tuple[str, ...]) -> tuple[ControlChoice, ...]:
    """Of a `RequestTemplate`'s `controls`. Raises `InvalidRequest` for a file that is not there."""
    return read_controls(controls, "controls")


def read_all(workload: Workload) -> None:
    """Everything that requests of `workload` may name; raises as `choices` does."""
    wanted = {entry.request.controls for entry in workload.mix}
    wanted |= {arrival.changes.get("controls", ()) for arrival in workload.trace or ()}
    for controls in wanted:
        choices(controls)
