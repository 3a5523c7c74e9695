"""A model that nobody could load is not the default one."""

from shared.bus.discovery import Service
from shared.bus.unusable import Unusable
from shared.models.catalogue import Catalogue
from shared.models.usable import as_found
from shared.services import NEEDED
from tests.helpers.factories import card, catalogue

BROKEN = Unusable(name="bad", source="x", kind="model", reason="no numbers")


def process(service: str, *models: str, unusable: tuple[Unusable, ...] = ()) -> Service:
    return Service(service, 1, "i", "0.1.0", models, "", "here", None, unusable=unusable)


def two() -> Catalogue:
    cards = {name: card(name=name) for name in ("bad", "good")}
    return Catalogue(cards=cards)


HERE = [process(service, "bad", "good") for service in NEEDED]
SPOILT = [*HERE[:-1], process("vae", "good", unusable=(BROKEN,))]


def test_the_default_moves_on_while_nobody_holds_the_first_model() -> None:
    assert two().default.name == "bad"
    assert as_found(two(), HERE).default.name == "bad"
    told = as_found(two(), SPOILT)
    assert (told.default.name, told.unloadable) == ("good", frozenset({"bad"}))
    assert told.find("bad") is not None  # who names it is told why by whoever takes no work of it
    assert as_found(told, [*SPOILT, process("vae", "bad")]).default.name == "bad"


def test_who_is_away_for_a_moment_takes_nothing_back() -> None:
    told = as_found(two(), SPOILT)
    assert as_found(told, SPOILT[:-1]).default.name == "good"
    assert as_found(told, ()).default.name == "good"
    assert as_found(told, HERE).default.name == "bad"


def test_where_no_model_can_be_drawn_the_first_is_still_the_default() -> None:
    [name] = catalogue().cards
    all_of_it = Unusable(name=name, source="x", kind="model", reason="no numbers")
    told = as_found(catalogue(), [process("vae", unusable=(all_of_it,))])
    assert told.default.name == name
