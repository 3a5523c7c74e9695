"""Names of models become single, reversible subject tokens."""

from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from shared import subjects
from shared.service_classes import CLASSES


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_any_model_name_is_one_token_and_can_be_read_back(name: str) -> None:
    token = subjects.token(name)
    assert not set(token) & set(".*> \t/\\")
    assert unquote(token) == name


def test_the_job_id_is_the_fourth_token_of_every_job_subject() -> None:
    for subject in (
        subjects.submit("j"),
        subjects.result("j"),
        subjects.image_result("j", 3),
        subjects.event("j"),
        subjects.cancel("j"),
        subjects.dead("j"),
    ):
        assert subjects.job_of(subject) == "j"


def test_the_job_id_of_work_can_be_read_from_its_subject() -> None:
    assert subjects.job_of_work(subjects.work("denoise", "a.b/c", "batch", "j", "n-0", 3)) == "j"


def test_queues_of_different_classes_do_not_overlap() -> None:
    filters = {subjects.work_filter("denoise", "m", c) for c in CLASSES}
    names = {subjects.work_consumer("denoise", "m", c) for c in CLASSES}
    assert len(filters) == len(names) == len(CLASSES)
