"""What a feature of a row may say and do, without the engine knowing the feature.

A feature (a mask's cache, ControlNets, LoRAs that come late) is a subclass in its own module, of
which a row carries one object. Each method here says what a plain row says.
"""

from collections.abc import Collection

from shared.models.lowrank.bank import Use
from shared.policy.batch_key import ShapeKey
from shared.policy.step_work import StepWork


class RowExtension:
    """Belongs to one row. Everything is called by the step loop, but for what says otherwise."""

    def blocked(self, step: int) -> bool:
        """After `step` steps the row can take no further one yet: what it needs is not here. Called
        under the loop's lock."""
        return False

    @property
    def asks(self) -> bool:
        """Within a step it waits for what other processes compute."""
        return False

    @property
    def local(self) -> bool:
        """Its next step needs what only this process has at hand."""
        return False

    @property
    def lacks_adapters(self) -> bool:
        """The adapters of the row are not all that it will have."""
        return False

    def work(self, images: int, shape: ShapeKey) -> StepWork | None:
        """Of the row's next step, which has `images` images of latents `shape`. None: that of a
        step that is computed in full."""
        return None

    def stepping(self, step: int, adapters: Collection[Use]) -> None:
        """After `step` steps the row takes the next one in another batch, with `adapters`."""

    def stepped(self, step: int) -> None:
        """Step number `step` is done."""

    def approximations(self, index: int, steps: int) -> set[str]:
        """What was not computed exactly in the first `steps` steps of image `index`. Called in any
        thread."""
        return set()

    def warnings(self) -> set[str]:
        """What the user is told beside that. Called in any thread."""
        return set()

    def close(self) -> None:
        """The row is not computed here any more. Called in any thread."""
