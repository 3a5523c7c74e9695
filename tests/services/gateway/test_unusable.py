"""What cannot be used is listed with its reason, and is no reason not to draw with the others."""

import asyncio
import dataclasses
import shutil
from pathlib import Path

import aiohttp

from services.gateway.app import serving
from services.gateway.routes.probes import missing_services
from shared.bus.base import ServiceInfo
from shared.bus.discovery import Service
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.unusable import Unusable
from shared.messages.components import ComponentState
from shared.models.catalogue import Catalogue
from shared.services import NEEDED
from shared.shipped import DEFAULT_LORAS, DEFAULT_MODEL
from shared.telemetry.metrics import Metrics
from tests.conftest import eventually, run
from tests.helpers.factories import card
from tests.services.gateway.pipeline import pipeline
from tests.services.gateway.server import server

BROKEN = Unusable(name="bad", source="x", kind="model", reason="no numbers")


def process(service: str, *models: str, unusable: tuple[Unusable, ...] = ()) -> Service:
    return Service(service, 1, "i", "0.1.0", models, "", "here", None, unusable=unusable)


def test_one_model_that_cannot_be_used_does_not_make_the_gateway_unready() -> None:
    found = [process(service, "good", "bad") for service in NEEDED if service != "vae"]
    found.append(process("vae", "good", unusable=(BROKEN,)))
    assert missing_services(found, ("good", "bad")) == []
    assert missing_services(found, ("bad",)) == ["vae for bad: no numbers"]
    assert missing_services(found[:-1], ("good",)) == ["vae for good"]


def test_a_model_that_is_on_disk_is_nothing_that_the_gateway_lacks() -> None:
    waiting = ComponentState(name="cold", state="on disk")
    found = [process(service, "good") for service in NEEDED]
    assert missing_services(found, ("good", "cold"))
    found = [dataclasses.replace(one, components=(waiting,)) for one in found]
    found.append(process("planner", "good", "cold"))
    assert missing_services(found, ("good", "cold")) == []


def test_models_are_listed_with_how_they_stand() -> None:
    told = {"components": [{"name": "pocket-sdxl", "state": "loading", "seconds": 4.5}]}
    metadata = {"service": "denoiser", "pid": "7", "models": ""}
    info = ServiceInfo(name="darkroom-denoiser", version="1", description="", metadata=metadata)

    async def main() -> None:
        async with server() as here, here.bus.service(info, lambda: told):
            [one] = (await here.ask("GET", "/v1/models")).json["data"]
            assert one["state"] == "on disk"  # for nobody else is there
            assert one["reason"] == (
                "prompt_encoder: none of its processes answers; vae: none of its processes answers"
            )

    run(main())


def test_models_are_listed_without_those_that_cannot_be_used_which_are_listed_apart() -> None:
    async def main() -> None:
        async with server() as here:
            served = (await here.ask("GET", "/v1/models")).json
            assert served["unusable"] == []  # nothing is known of the layers of this model
            name = served["data"][0]["id"]
            told = {
                "unusable": [
                    {"name": name, "source": "x", "kind": "model", "reason": "no numbers"},
                    {"name": "union", "source": "y", "kind": "controlnet", "reason": "a union"},
                ]
            }
            metadata = {"service": "vae", "pid": "7", "models": ""}
            info = ServiceInfo(
                name="darkroom-vae", version="0.1.0", description="", metadata=metadata
            )
            async with here.bus.service(info, lambda: told):
                served = (await here.ask("GET", "/v1/models")).json
            assert name not in [one["id"] for one in served["data"]]
            assert served["unusable"] == [
                {"id": name, "kind": "model", "reason": "no numbers"},
                {"id": "union", "kind": "controlnet", "reason": "a union"},
            ]

    run(main())


def test_a_request_that_names_no_model_gets_the_first_that_somebody_could_load() -> None:
    two = Catalogue(cards={name: card(name=name) for name in ("bad", "good")})
    told = {"unusable": [{"name": "bad", "source": "x", "kind": "model", "reason": "no numbers"}]}
    metadata = {"service": "vae", "pid": "7", "models": "good"}
    info = ServiceInfo(name="darkroom-vae", version="0.1.0", description="", metadata=metadata)

    async def main() -> None:
        bus = MemoryBus(MemoryBroker(), "test")
        async with (
            serving(bus, two, Metrics("gateway")) as gateway,
            bus.service(info, lambda: told),
            asyncio.TaskGroup() as group,
        ):
            watching = group.create_task(gateway.watch_models())

            async def moved() -> bool:
                return gateway.catalogue.default.name == "good"

            assert gateway.catalogue.default.name == "bad"
            await eventually(moved)
            watching.cancel()

    run(main())


def test_loras_that_fit_no_model_are_listed_apart(tmp_path: Path) -> None:
    lora_directory = tmp_path / "loras"
    shutil.copytree(DEFAULT_LORAS, lora_directory)
    (lora_directory / "broken.safetensors").write_bytes(b"no tensors")
    catalogue = Catalogue.load([DEFAULT_MODEL], [str(lora_directory)])

    async def main() -> None:
        async with (
            pipeline() as (_, bus),
            aiohttp.ClientSession() as http,
            serving(bus, catalogue, Metrics("gateway")) as gateway,
            http.get(f"http://{gateway.address}/v1/models") as reply,
        ):
            told = await reply.json()
        [one] = told["unusable"]
        assert (one["id"], one["kind"]) == ("broken", "lora")
        assert "cannot be read" in one["reason"]
        assert told["data"][0]["loras"] == ["neon", "outline", "pastel", "stripes"]

    run(main())
