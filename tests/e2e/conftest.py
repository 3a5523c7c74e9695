"""Two fleets for all end-to-end tests; `tests/units.py` keeps those of one fleet together."""

from collections.abc import Iterator

import pytest

from shared.shipped import DEFAULT_MODEL
from tests.e2e.helpers.running import RunningFleet, running_fleet
from tests.e2e.helpers.secured import Secured, secured_fleet
from tests.helpers.flux import DYNAMIC, Atelier, make_flux


@pytest.fixture(scope="session")
def atelier(tmp_path_factory: pytest.TempPathFactory) -> Atelier:
    return Atelier(make_flux(tmp_path_factory.mktemp("models") / "tiny-flux", **DYNAMIC))


@pytest.fixture(scope="session")
def fleet(atelier: Atelier) -> Iterator[RunningFleet]:
    """Of the model that ships, and of one with another architecture."""
    with running_fleet("--model", DEFAULT_MODEL, "--model", atelier.source) as found:
        yield found


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_fleet(tmp_path_factory.mktemp("secured") / "keys") as found:
        yield found
