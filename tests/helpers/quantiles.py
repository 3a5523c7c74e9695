"""Quantiles of the beta distribution are computed once: diffusers asks for the same thousand of
them each time that it makes some of its schedulers, for half a second."""

from collections.abc import Iterator
from functools import cache

import pytest
from scipy.stats import beta

_ppf = cache(beta.ppf)


@pytest.fixture(scope="session", autouse=True)
def quantiles() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beta, "ppf", _ppf)
        yield
