"""A process that keeps converted weights in a directory of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.models.weights.sharing import share_weights


@pytest.fixture
def converted(tmp_path: Path) -> Iterator[Path]:
    """The directory."""
    directory = tmp_path / "converted"
    share_weights(directory, 1 << 30)
    yield directory
    share_weights(directory, 0)
