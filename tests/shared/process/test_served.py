"""Models are added and removed while fleets run, and that outlives them. On the fake bus."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.config import Settings
from shared.errors import InvalidRequest, Misconfigured
from shared.messages.components import ServedModels
from shared.models import served
from shared.models.cards import read_card
from shared.models.catalogue import Catalogue
from shared.models.served import new_card, sources_of, with_model, without_model
from shared.process.served import ServedCatalogue
from tests.conftest import eventually, run
from tests.helpers.factories import card
from tests.helpers.models import FLUX, SDXL, copied

OTHER = card(name="other", source="/models/other")
CONFIGURED = card(name="first", source="/models/first")


def test_what_is_added_is_served_until_it_is_removed() -> None:
    added = with_model(OTHER)(None)
    assert sources_of(["/models/first"], added) == ("/models/first", "/models/other")
    assert with_model(OTHER)(added) == added
    removed = without_model(OTHER)(added)
    assert removed == ServedModels(gone=("other",))
    assert with_model(OTHER)(removed) == added


def test_what_is_configured_and_removed_stays_away_until_it_is_added_again() -> None:
    removed = without_model(CONFIGURED)(None)
    assert sources_of(["/models/first", "/models/other"], removed) == ("/models/other",)
    assert removed.gone == ("first",)
    assert with_model(CONFIGURED)(removed) == ServedModels()


def test_another_model_may_take_the_name_of_one_that_was_removed() -> None:
    removed = without_model(CONFIGURED)(None)
    anew = card(name="first", source="/models/anew")
    both = with_model(anew)(removed)
    assert sources_of(["/models/first"], both) == ("/models/anew",)
    assert both.gone == ()


def test_there_is_a_bound_on_what_is_added_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "MOST_ADDED", 1)
    monkeypatch.setattr(served, "MOST_GONE", 1)
    with pytest.raises(InvalidRequest, match="source: '/models/first' is not allowed"):
        with_model(CONFIGURED)(with_model(OTHER)(None))
    one = without_model(CONFIGURED)(None)
    with pytest.raises(InvalidRequest, match="model: 'other' is not allowed"):
        without_model(OTHER)(one)
    added = with_model(OTHER)(one)
    assert without_model(OTHER)(added).gone == ("other",)


async def new_bus() -> MemoryBus:
    bus = MemoryBroker().connect("test")
    await bus.ensure(TOPOLOGY)
    return bus


@asynccontextmanager
async def following(bus: MemoryBus, *configured: str) -> AsyncIterator[ServedCatalogue]:
    found = await ServedCatalogue(bus, configured, Catalogue.load).begin()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.follow())
        yield found
        task.cancel()


def test_every_process_follows_and_later_ones_begin_with_it() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        changes = 0

        async def changed() -> None:
            nonlocal changes
            changes += 1

        async with following(bus, SDXL) as one, following(bus, SDXL) as other:
            other.changed.append(changed)
            assert (await one.add(FLUX)).name == "pocket-flux"
            assert list(one.catalogue.cards) == ["pocket-sdxl", "pocket-flux"]

            async def followed() -> bool:
                return list(other.catalogue.cards) == ["pocket-sdxl", "pocket-flux"]

            await eventually(followed)
            assert changes == 1
            await one.remove("pocket-sdxl")

            async def gone() -> bool:
                return list(other.catalogue.cards) == ["pocket-flux"]

            await eventually(gone)
            assert other.gone == ("pocket-sdxl",)
            assert list(other.catalogue.removed) == ["pocket-sdxl"]
        async with following(bus, SDXL) as later:
            assert list(later.catalogue.cards) == ["pocket-flux"]
            await later.add(SDXL)
            assert list(later.catalogue.cards) == ["pocket-sdxl", "pocket-flux"]
            assert later.gone == ()

    run(scenario())


def test_what_is_no_model_is_refused_with_the_words_of_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    unfit = copied(tmp_path / "unfit", {"model_index.json": {"_class_name": "Unheard"}})
    same = copied(tmp_path / "pocket-sdxl", weights=True)

    async def scenario() -> None:
        bus = await new_bus()
        async with following(bus, SDXL) as found:
            for source, reason in (
                (str(tmp_path / "empty"), "is not a diffusers directory"),
                (unfit, "Unheard"),
                (same, "are both named pocket-sdxl"),
            ):
                with pytest.raises(Misconfigured, match=reason):
                    await found.add(source)
            assert (await found.add(SDXL)).source == SDXL  # it is served already
            assert await _said(found) is None

    run(scenario())


def test_the_last_model_and_one_that_is_not_served_are_not_removed() -> None:
    async def scenario() -> None:
        async with following(await new_bus(), SDXL) as found:
            with pytest.raises(InvalidRequest, match="the last of those that are served"):
                await found.remove("pocket-sdxl")
            with pytest.raises(InvalidRequest, match="'x' is not allowed; allowed: one of pocket"):
                await found.remove("x")

    run(scenario())


def test_a_list_that_leaves_no_model_changes_nothing_here() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        def read(sources: Sequence[str]) -> Catalogue:
            return Catalogue.load(sources)

        found = await ServedCatalogue(bus, (SDXL,), read).begin()
        await found._document.change(without_model(read_card(SDXL)))
        await found.look()
        assert list(found.catalogue.cards) == ["pocket-sdxl"]

    run(scenario())


async def _said(found: ServedCatalogue) -> ServedModels | None:
    return await found._document.read()


def test_a_model_that_is_removed_takes_its_other_names_with_it() -> None:
    settings = Settings(models=os.pathsep.join((SDXL, FLUX)), model_aliases="flux=pocket-flux")
    assert Catalogue.of(settings, (SDXL, FLUX)).aliases == {"flux": "pocket-flux"}
    assert Catalogue.of(settings, (SDXL,)).aliases == {}
    wrong = Settings(models=SDXL, model_aliases="x=nobody")
    with pytest.raises(Misconfigured, match="nobody is not served"):
        Catalogue.of(wrong, (SDXL, FLUX))


def test_a_model_that_is_called_like_an_alias_is_not_added(tmp_path: Path) -> None:
    source = copied(tmp_path / "named", {"darkroom.json": None}, weights=True)
    catalogue = Catalogue.load([SDXL]).with_aliases({"named": "pocket-sdxl"})
    with pytest.raises(Misconfigured, match="another name of pocket-sdxl"):
        new_card(source, catalogue, "")


def test_a_model_whose_directory_is_gone_stays_while_others_are_added(tmp_path: Path) -> None:
    source = copied(tmp_path / "fragile", {"darkroom.json": None}, weights=True)

    async def scenario() -> None:
        async with following(await new_bus(), SDXL) as found:
            await found.add(source)
            shutil.rmtree(source)
            await found.add(FLUX)
            assert list(found.catalogue.cards) == ["pocket-sdxl", "fragile", "pocket-flux"]
            assert found.catalogue.unusable == ()
            await found.remove("fragile")
            assert list(found.catalogue.cards) == ["pocket-sdxl", "pocket-flux"]

    run(scenario())
