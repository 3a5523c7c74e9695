"""What a feature of a row may say and do, without the engine knowing the feature.

A feature's state is a subclass in the feature's own folder, of which a row carries one object. Each
method here says what a plain row says.
"""

from collections.abc import Hashable

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
    def version(self) -> Hashable:
        """Of what the row computes with: when it changes, its batch is made anew. It may change
        only by `Engine.change`."""
        return None

    def work(self, images: int, shape: ShapeKey) -> StepWork | None:
        """Of the row's next step, which has `images` images of latents `shape`. None: that of a
        step that is computed in full."""
        return None

    def stepped(self, step: int) -> None:
        """Step number `step` is done."""

    def approximations(self, index: int, steps: int) -> set[str]:
        """What was not computed exactly in the first `steps` steps of image `index`. Called in any
        thread."""
        return set()

    def warnings(self) -> set[str]:
        """What else the user should know, as warnings. Called in any thread."""
        return set()

    def close(self) -> None:
        """The row is not computed here any more. Called in any thread."""
