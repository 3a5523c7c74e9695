"""A loader for each test, and what it loads."""

from collections.abc import Iterator

import pytest

from shared.residency.loader import Loader
from tests.shared.residency.loading import Gate, Source


@pytest.fixture
def loader() -> Iterator[Loader]:
    found = Loader()
    yield found
    found.close()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """It is opened at the end in any case."""
    found = Gate()
    yield found
    found.open()
