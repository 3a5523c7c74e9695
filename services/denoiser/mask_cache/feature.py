"""Edits whose masks are cached: which of a task's rows have an activation cache, or record one."""

from services.denoiser.mask_cache.lookup import CacheLookup
from services.denoiser.mask_cache.row_cache import RowCache
from services.denoiser.rows.feature import RowFeature
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from shared.jobs.edits import left_out
from shared.messages.nodes import Denoise
from shared.worker.task import Task


class MaskCaches(RowFeature):
    """Those of one model's rows. It comes after all other features: a row that has any of them is
    computed in full, and so is a suspect's, for what ended its process may be the cache."""

    def __init__(self, lookup: CacheLookup, rounds_up: bool) -> None:
        """`rounds_up`: see `Family.rounds_up`."""
        self.lookup, self._rounds_up = lookup, rounds_up

    def extend(self, task: Task, row: Row, image: SourceImage | None) -> RowCache | None:
        if image is None or image.digest is None or row.extensions or task.suspect:
            return None
        return self.lookup.masked(row, image, left_out(task.parameters(Denoise), self._rounds_up))

    def close(self) -> None:
        self.lookup.close()
