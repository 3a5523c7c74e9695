"""What users are told of jobs whose model is not in memory, or was removed."""

import asyncio

from shared.bus.discovery import Service
from shared.errors import ModelRemoved
from shared.messages.components import ComponentState
from tests.conftest import run
from tests.services.gateway.server import server

MODEL = "pocket-sdxl"


def process(service: str, state: ComponentState) -> Service:
    return Service(service, 1, "i", "0.1.0", (), "", "here", None, components=(state,))


def test_a_job_under_way_says_that_its_model_is_being_loaded() -> None:
    loading = ComponentState(name=MODEL, state="loading", seconds=4.0)

    async def main() -> None:
        async with server() as here, asyncio.TaskGroup() as group:
            here.line.hold.clear()
            drawing = group.create_task(here.draw())
            await here.line.started.wait()
            [job_id] = here.line.specs
            view = (await here.ask("GET", f"/v1/jobs/{job_id}")).json
            assert (view["model_state"], view["loading_seconds"]) == (None, None)
            here.gateway.found = [process("denoiser", loading)]
            view = (await here.ask("GET", f"/v1/jobs/{job_id}")).json
            assert (view["model_state"], view["loading_seconds"]) == ("loading", 4.0)
            here.line.hold.set()
            assert (await drawing).status == 200
            view = (await here.ask("GET", f"/v1/jobs/{job_id}")).json
            assert (view["status"], view["model_state"]) == ("done", None)

    run(main())


def test_a_job_whose_model_was_removed_ends_as_one_of_a_model_that_is_not_there() -> None:
    async def main() -> None:
        async with server() as here:
            here.line.failure = ModelRemoved(MODEL)
            answer = await here.draw()
            assert answer.status == 404
            assert (answer.error["code"], answer.error["param"]) == ("model_removed", "model")
            assert f"the model {MODEL} was removed" in answer.error["message"]
            assert answer.headers["x-should-retry"] == "false"

    run(main())
