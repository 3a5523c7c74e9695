"""What the loader of a test loads."""

from collections.abc import Iterator

import pytest

from tests.shared.residency.loading import Gate, Source


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """It is opened at the end in any case."""
    found = Gate()
    yield found
    found.open()
