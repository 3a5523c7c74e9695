"""Who may do what, as the table has it: by hand here, on a real server in test_nats_keys.py."""

import pytest

from services.fleet.access.permissions import HOLDERS, permissions
from shared import subjects
from shared.bus.nats.grants import EVERYTHING, Grants
from shared.bus.patterns import matches
from shared.security.keys import inbox_of, new_seed, public_key
from shared.services import SERVICES, Served

KEY = public_key(new_seed())
MODELS = ("pocket-sdxl", "a.b/c d")
CONTROLS = ("edges", "c.d e")
WORKERS = {name: spec.nodes for name, spec in SERVICES.items() if spec.nodes}


def granted(holder: str) -> Grants:
    return permissions(holder, KEY, Served(MODELS, CONTROLS))


def may_publish(holder: str, subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in granted(holder).publish)


def may_subscribe(holder: str, subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in granted(holder).subscribe)


def test_only_users_submit() -> None:
    submitters = {holder for holder in HOLDERS if may_publish(holder, subjects.submit("j"))}
    assert submitters == {"gateway", "client", "admin"}


def test_only_those_who_work_on_jobs_write_records() -> None:
    writers = {holder for holder in HOLDERS if may_publish(holder, "$KV.records.j")}
    assert writers == {"planner", *WORKERS, "admin"}


def test_planners_and_placement_say_what_processes_hold_and_who_holds_it_is_told() -> None:
    for subject in ("$KV.placement.vae", subjects.PLACED):
        writers = {holder for holder in HOLDERS if may_publish(holder, subject)}
        assert writers == {"planner", "placement", "admin"}
    readers = {one for one in HOLDERS if may_publish(one, "$JS.API.STREAM.MSG.GET.KV_placement")}
    assert readers == {"planner", "placement", *WORKERS, "admin"}
    told = {one for one in HOLDERS if may_subscribe(one, subjects.PLACED)}
    assert told == {"planner", *WORKERS, "admin"}


def test_only_gateways_and_operators_say_what_is_served_and_every_process_is_told() -> None:
    for subject in ("$KV.models.served", subjects.CHANGED_MODELS):
        writers = {holder for holder in HOLDERS if may_publish(holder, subject)}
        assert writers == {"gateway", "admin"}
    told = {one for one in HOLDERS if may_subscribe(one, subjects.CHANGED_MODELS)}
    assert told == set(HOLDERS) - {"client"}


def test_only_the_vae_commits_images() -> None:
    subject = subjects.image_result("j", 0)
    assert {one for one in HOLDERS if may_publish(one, subject)} == {"vae", "admin"}


def test_denoisers_ask_controlnets_and_free_what_they_answer() -> None:
    for control in CONTROLS:
        asked = subjects.control(control)
        assert {one for one in HOLDERS if may_publish(one, asked)} == {"denoiser", "admin"}
        assert {one for one in HOLDERS if may_subscribe(one, asked)} == {"controlnet", "admin"}
    assert not may_publish("denoiser", subjects.control("unknown"))
    assert may_publish("denoiser", subjects.release("arena"))
    assert may_subscribe("controlnet", subjects.release("arena"))


def test_planners_store_the_pictures_of_jobs_and_who_computes_with_them_reads_them() -> None:
    subject = subjects.job_input("j", 0)
    assert {one for one in HOLDERS if may_publish(one, subject)} == {"planner", "admin"}
    readers = {one for one in HOLDERS if may_publish(one, f"$JS.API.DIRECT.GET.INPUTS.{subject}")}
    assert readers == {"planner", "controlnet", "vae", "admin"}


def test_the_vae_encodes_images_too() -> None:
    queue = subjects.work_consumer("encode_image", MODELS[0], "batch")
    pull = f"$JS.API.CONSUMER.MSG.NEXT.WORK.{queue}"
    assert {one for one in HOLDERS if may_publish(one, pull)} == {"vae", "admin"}


@pytest.mark.parametrize(("holder", "kinds"), WORKERS.items())
def test_a_service_pulls_from_the_queues_of_its_own_kinds_and_models(
    holder: str, kinds: tuple[str, ...]
) -> None:
    own = CONTROLS if holder == "controlnet" else MODELS
    for other in [kind for each in WORKERS.values() for kind in each]:
        for model in (*MODELS, *CONTROLS, "unknown"):
            queue = subjects.work_consumer(other, model, "batch")
            pull = f"$JS.API.CONSUMER.MSG.NEXT.WORK.{queue}"
            acknowledge = f"$JS.ACK.WORK.{queue}.1.2.3.4.5"
            expected = other in kinds and model in own
            assert may_publish(holder, pull) is expected
            assert may_publish(holder, acknowledge) is expected


def test_nobody_but_the_planner_takes_submissions_or_changes_streams() -> None:
    for subject in ("$JS.API.CONSUMER.MSG.NEXT.JOBS.planner", "$JS.API.STREAM.UPDATE.WORK"):
        assert {one for one in HOLDERS if may_publish(one, subject)} == {"planner", "admin"}


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.API.STREAM.DELETE.WORK",
        "$JS.API.STREAM.PURGE.DEAD",
        "$JS.API.CONSUMER.DELETE.JOBS.planner",
        "$SYS.REQ.SERVER.PING",
        "anything.else",
    ],
)
def test_what_no_service_needs_none_may_do(subject: str) -> None:
    assert {one for one in HOLDERS if may_publish(one, subject)} == {"admin"}


def test_an_inbox_is_its_owners() -> None:
    other = f"{inbox_of(public_key(new_seed()))}.1.2"
    for holder in HOLDERS:
        assert may_subscribe(holder, f"{inbox_of(KEY)}.1.2")
        assert may_subscribe(holder, other) is (holder == "admin")
        assert may_publish(holder, other) is (holder == "admin")


def test_a_service_shows_itself_under_its_own_name_alone() -> None:
    assert may_subscribe("prompt_encoder", "$SRV.INFO.darkroom-prompt-encoder.x")
    assert not may_subscribe("prompt_encoder", "$SRV.INFO.darkroom-vae")


def test_everything_is_for_the_admin_only() -> None:
    for holder in HOLDERS:
        assert (EVERYTHING.publish <= granted(holder).publish) is (holder == "admin")
        assert (EVERYTHING.subscribe <= granted(holder).subscribe) is (holder == "admin")
