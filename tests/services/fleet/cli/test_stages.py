import msgspec

from services.fleet.cli.stages import Spent, Stages, spent_by_kind
from shared.messages import NodeProgress, StageTime, StepProgress


def node(kind: str, state: str, name: str = "") -> NodeProgress:
    return NodeProgress(
        job_id="j",
        node=name or kind,
        kind=kind,
        state=state,  # type: ignore[arg-type]
        at=0.0,
        worker="w",
    )


def step(index: int, done: int, steps: int = 4) -> StepProgress:
    return StepProgress(
        job_id="j", node=f"denoise-{index}", index=index, step=done, steps=steps, rows=1, at=0.0
    )


def test_a_stage_runs_from_its_first_event_to_its_last_node() -> None:
    stages = Stages(images=1)
    stages.take(node("encode", "started"))
    assert str(stages.by_kind["encode"]) == "encode: running"
    stages.take(node("encode", "finished"))
    assert str(stages.by_kind["encode"]) == "encode: done"
    assert stages.by_kind["denoise"].state == "waiting"


def test_steps_of_several_images_are_added_up() -> None:
    stages = Stages(images=2)
    stages.take(step(0, 3))
    stages.take(step(1, 1))
    assert str(stages.by_kind["denoise"]) == "denoise: running 4/8"


def test_denoising_is_done_when_every_image_is() -> None:
    stages = Stages(images=2)
    stages.take(step(0, 4))
    stages.take(node("denoise", "finished", "denoise-0"))
    assert stages.by_kind["denoise"].state == "running"
    stages.take(node("denoise", "finished", "denoise-1"))
    assert str(stages.by_kind["denoise"]) == "denoise: done 8/8"


def test_the_pictures_to_steer_by_are_a_stage_of_jobs_that_have_some() -> None:
    stages = Stages(images=1, controls=2)
    assert list(stages.by_kind) == ["encode", "hint", "denoise", "decode"]
    stages.take(node("hint", "finished", "hint-1"))
    assert str(stages.by_kind["hint"]) == "hint: waiting 1/2"
    stages.take(node("hint", "finished", "hint-0"))
    assert str(stages.by_kind["hint"]) == "hint: done 2/2"
    plain = Stages(images=1)
    plain.take(node("hint", "started"))
    assert list(plain.by_kind) == ["encode", "denoise", "decode"]


def test_the_image_that_an_edit_begins_from_is_a_stage_of_its_own() -> None:
    stages = Stages(images=1, edit=True)
    assert list(stages.by_kind) == ["encode", "encode_image", "denoise", "decode"]
    stages.take(node("encode_image", "finished", "encode_image"))
    assert str(stages.by_kind["encode_image"]) == "encode_image: done"


def test_lost_events_do_not_matter_once_the_job_is_done() -> None:
    stages = Stages(images=1)
    stages.finish()
    assert {stage.state for stage in stages.by_kind.values()} == {"done"}


def test_events_of_other_kinds_change_nothing() -> None:
    stages = Stages(images=1)
    stages.take(node("plan", "started"))
    assert {stage.state for stage in stages.by_kind.values()} == {"waiting"}


def test_a_kind_took_as_long_as_its_slowest_node() -> None:
    def time(name: str, waiting: float, running: float) -> StageTime:
        return StageTime(
            node=name,
            kind=name.partition("-")[0],
            waiting=waiting,
            running=running,
            worker="w",
            attempts=1,
        )

    stages = [time("encode", 0.1, 0.2), time("decode-0", 0.5, 1.0), time("decode-1", 1.0, 0.7)]
    assert spent_by_kind(stages) == {"encode": Spent(0.1, 0.2), "decode": Spent(1.0, 1.0)}


def test_a_job_whose_model_is_not_loaded_says_so() -> None:
    stages = Stages(1)
    for event, said in (
        ({"model_state": "on disk", "loading_seconds": 4.0}, "the model is on disk"),
        ({"model_state": "loading", "loading_seconds": 4.4}, "the model is loading, about 4 s"),
        ({"model_state": "loading"}, "the model is loading"),
        ({"position": 2}, "place 2 in line"),
    ):
        stages.take(msgspec.structs.replace(node("plan", "started"), **event))
        assert stages.standing == said
