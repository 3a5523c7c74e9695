"""What one test leaves in the network that many share does not reach the next."""

from collections.abc import Iterator

import pytest

from tests.services.denoiser.models import network


@pytest.fixture(autouse=True)
def _plain_weights() -> Iterator[None]:
    """An engine may have merged adapters when it was stopped."""
    yield
    if network.cache_info().currsize:
        network().merge(())
