"""Models come and go while a fleet runs: in and out of memory, and in and out of what is served."""

import json
import urllib.request
from pathlib import Path
from typing import Any

from shared.client import Darkroom, new_job_id
from shared.messages import GenerationRequest, JobDone, JobFailed
from tests.chaos.fleet.holds import Hold
from tests.conftest import HANG_SECONDS, run, until
from tests.e2e.helpers.running import RunningFleet
from tests.helpers.models import copied

DEFAULT = "pocket-sdxl"


def listed(fleet: RunningFleet) -> dict[str, Any]:
    """Models by name."""
    with urllib.request.urlopen(f"{fleet.http}/v1/models", timeout=HANG_SECONDS) as answer:
        return {model["id"]: model for model in json.load(answer)["data"]}


def state(fleet: RunningFleet, model: str) -> str:
    found = listed(fleet).get(model)
    return "not served" if found is None else str(found["state"])


def wanted(model: str, **fields: Any) -> GenerationRequest:
    prompt = "a large red circle left on white"
    return GenerationRequest(job_id=new_job_id(), prompt=prompt, model=model, seed=5, **fields)


def test_a_model_is_let_go_and_comes_back_and_jobs_of_others_go_on(fleet: RunningFleet) -> None:
    assert state(fleet, "tiny-flux") == "loaded"
    done = fleet.darkroom("models", "unload", "tiny-flux")
    assert done.returncode == 0, done.stderr
    until(lambda: state(fleet, "tiny-flux") == "on disk")
    until(lambda: "state     on disk" in fleet.darkroom("models").stdout)

    async def draw(model: str, **fields: Any) -> Any:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            job = await darkroom.submit(wanted(model, **fields))
            return await job.outcome()

    assert isinstance(run(draw(DEFAULT, steps=4)), JobDone)
    assert fleet.darkroom("models", "load", "tiny-flux").returncode == 0
    small = {"steps": 2, "width": 64, "height": 64}
    assert isinstance(run(draw("tiny-flux", **small)), JobDone)
    assert state(fleet, "tiny-flux") == "loaded"
    refused = fleet.darkroom("models", "unload", "x")
    assert refused.returncode == 2
    assert "one of" in refused.stderr


def test_a_model_is_added_drawn_with_and_removed_with_a_job_under_way(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    source = copied(tmp_path / "added", {"darkroom.json": None}, weights=True)
    no_model = fleet.darkroom("models", "add", str(tmp_path))
    assert no_model.returncode == 1
    assert "is not a diffusers directory" in no_model.stderr
    assert fleet.darkroom("models", "add", source).returncode == 0
    assert "added" in fleet.darkroom("models").stdout

    async def draw() -> None:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            job = await darkroom.submit(wanted("added", steps=4))
            assert isinstance(await job.outcome(), JobDone)

    async def begin(held: Hold) -> str:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            job = await darkroom.submit(wanted("added", steps=20))
            await held.reached()
            return job.job_id

    async def ended(job_id: str) -> str:
        async with Darkroom.connect(fleet.nats_url) as darkroom:
            outcome = await (await darkroom.attach(job_id)).outcome()
            assert isinstance(outcome, JobFailed)
            return outcome.failure.code

    run(draw())
    with fleet.hold("step-3@denoiser") as held:
        under_way = run(begin(held))
        assert fleet.darkroom("models", "remove", "added").returncode == 0
    assert run(ended(under_way)) == "model_removed"
    until(lambda: state(fleet, "added") == "not served")
    assert fleet.darkroom("models", "remove", "added").returncode == 2
