"""Processes held at a point, so that a test harms or asks them there and not wherever they have got
to meanwhile: a kill "in the middle" is in the middle on any machine, however fast or busy it is.

    with hold(directory, "step-20@denoiser") as held:
        job = await darkroom.submit(request)
        os.kill(await held.reached(), signal.SIGKILL)

`directory` is that of `points.prepared`; the process side is in `injection.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import eventually


@dataclass(frozen=True, slots=True)
class Hold:
    """`armed` is renamed, with its pid as suffix, by the process that is held."""

    armed: Path

    async def reached(self) -> int:
        """Return when a process is held; its pid."""

        async def found() -> bool:
            return bool(self._held())

        await eventually(found)
        return int(self._held()[0].suffix[1:])

    def release(self) -> None:
        """Let the process go on; nobody is held any more."""
        self.armed.unlink(missing_ok=True)
        for held in self._held():
            held.unlink()

    def _held(self) -> list[Path]:
        return list(self.armed.parent.glob(f"{self.armed.name}.*"))


@contextmanager
def hold(directory: Path, place: str) -> Iterator[Hold]:
    """The next process that comes to `place`, a `point@service`, waits there until the context is
    left, or until it is killed. Those that come after it do not."""
    armed = Hold(directory / f"{place}.hold")
    armed.armed.touch()
    try:
        yield armed
    finally:
        armed.release()
