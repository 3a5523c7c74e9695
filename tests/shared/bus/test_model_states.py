"""How a model stands in a fleet, of what its processes say."""

import itertools
from typing import get_args

import pytest

from shared.bus.discovery import Service
from shared.bus.model_states import HOLDERS, model_state, model_states
from shared.messages.components import ComponentState, State

STATES: tuple[State, ...] = get_args(State)


def process(service: str, *components: ComponentState, held: tuple[str, ...] = ()) -> Service:
    return Service(service, 1, "i", "0.1.0", held, "", "here", None, components=components)


def one(state: State, reason: str = "", seconds: float | None = None) -> ComponentState:
    return ComponentState(name="m", state=state, reason=reason, seconds=seconds)


def fleet(*states: State) -> list[Service]:
    return [process(service, one(state)) for service, state in zip(HOLDERS, states, strict=True)]


def test_each_service_with_nodes_of_models_holds_a_component_of_each() -> None:
    assert HOLDERS == ("prompt_encoder", "denoiser", "vae")


@pytest.mark.parametrize("states", list(itertools.product(STATES, repeat=3)), ids="-".join)
def test_it_stands_as_what_is_missing_most(states: tuple[State, State, State]) -> None:
    expected = next(
        state for state in ("failed", "on disk", "draining", "loading", "loaded") if state in states
    )
    assert model_state(fleet(*states), "m").state == expected


def test_one_process_that_holds_it_is_enough() -> None:
    found = [*fleet("loaded", "loaded", "loaded"), process("vae", one("failed", "no memory"))]
    assert model_state(found, "m").state == "loaded"


def test_a_model_that_is_loaded_by_several_is_there_when_the_slowest_has_it() -> None:
    found = [
        process("prompt_encoder", one("loading", seconds=2.0)),
        process("denoiser", one("loading", seconds=7.0), one("loading", seconds=4.0)),
        process("vae", one("loaded")),
    ]
    assert (model_state(found, "m").state, model_state(found, "m").seconds) == ("loading", 4.0)


def test_the_reason_says_whose_it_is() -> None:
    found = [*fleet("loaded", "loaded", "loaded")[:2], process("vae", one("failed", "no file"))]
    state = model_state(found, "m")
    assert (state.state, state.reason) == ("failed", "vae: no file")


def test_processes_that_are_too_old_to_say_hold_what_they_name() -> None:
    found = [process(service, held=("m",)) for service in HOLDERS]
    assert {name: one.state for name, one in model_states(found).items()} == {"m": "loaded"}
    missing = model_state(found[:2], "m")
    assert (missing.state, missing.reason) == ("on disk", "vae: none of its processes answers")
