import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy.cautious_cost import UNSEEN, CautiousCost
from shared.policy.cost_model import EVERY, LATELY, MANY, MAX_CELLS, MEMORY, PACE_STEPS, CostModel
from shared.policy.step_work import StepWork

measurements = st.lists(
    st.tuples(st.integers(1, 64), st.sampled_from([64, 256, 1024, 16384]), st.floats(1e-4, 60.0)),
    max_size=20,
)


def learnt(points: list[tuple[int, int, float]]) -> CostModel:
    model = CostModel()
    for forwards, tokens, seconds in points:
        model = model.observe(StepWork.full(forwards, tokens), seconds)
    return model


def predict(model: CostModel, forwards: int, tokens: int) -> float:
    return model.predict(StepWork.full(forwards, tokens))


@settings(deadline=None, derandomize=True)
@given(measurements, st.integers(1, 64), st.sampled_from([64, 256, 16384]))
def test_a_prediction_is_positive_and_grows_with_rows_and_tokens(
    points: list[tuple[int, int, float]], forwards: int, tokens: int
) -> None:
    model = learnt(points)
    seconds = predict(model, forwards, tokens)
    assert 0.0 < seconds <= predict(model, forwards + 1, tokens)
    assert seconds <= predict(model, forwards, tokens + 1)


def test_before_the_first_step_a_prediction_has_a_sensible_size() -> None:
    assert 0.02 < predict(CostModel(), 2, 256) < 0.2
    assert predict(CostModel(), 0, 256) == 0.0


def test_one_measurement_sets_the_size_of_all_predictions() -> None:
    model = learnt([(2, 256, 0.5)])
    assert predict(model, 2, 256) == pytest.approx(0.5, rel=1e-3)
    assert 0.5 < predict(model, 4, 256) < 1.0


def test_a_linear_truth_is_learnt_exactly_enough() -> None:
    def truth(forwards: int, tokens: int) -> float:
        return 0.1 + 3e-5 * forwards * tokens + 2e-8 * forwards * tokens**2

    points = [(f, n, truth(f, n)) for f in (1, 2, 4, 8, 16) for n in (256, 1024)]
    model = learnt(points)
    for forwards in (1, 3, 32):
        for tokens in (256, 512, 1024):
            expected = truth(forwards, tokens)
            assert predict(model, forwards, tokens) == pytest.approx(expected, rel=0.05)


def test_the_batch_curve_of_a_small_network_is_fitted_within_a_fifth() -> None:
    measured = {1: 22.2e-3, 2: 27.5e-3, 4: 33.3e-3, 8: 49.9e-3, 16: 85.5e-3}
    model = learnt([(forwards, 256, seconds) for forwards, seconds in measured.items()])
    for forwards, seconds in measured.items():
        assert predict(model, forwards, 256) == pytest.approx(seconds, rel=0.2)


def test_old_measurements_fade() -> None:
    model = learnt([(2, 256, 1.0)] * 100 + [(2, 256, 0.1)] * 200)
    assert predict(model, 2, 256) == pytest.approx(0.1, rel=0.05)


def test_what_was_measured_is_fitted_within_a_few_steps() -> None:
    model = learnt([(2, 256, 0.5)] * 100)
    for _ in range(MEMORY):  # half-way to the new truth, at the latest
        model = model.observe(StepWork.full(2, 256), 0.1)
        assert model.unfitted < EVERY
    model = model.observe(StepWork.full(4, 256), 0.2)
    assert model.unfitted == 0
    assert predict(model, 2, 256) < 0.35


@pytest.mark.parametrize("factor", [0.1, 0.7, 1.4, 10.0])
def test_another_pace_of_the_host_is_known_for_all_sizes_within_a_few_steps(factor: float) -> None:
    sizes = (1, 2, 8)
    model = learnt([(n, 256, 0.01 + 0.02 * n) for n in sizes] * 10)
    for _ in range(PACE_STEPS // 2 + 1):
        model = model.observe(StepWork.full(2, 256), 0.05 * factor)
    for n in sizes:
        assert predict(model, n, 256) == pytest.approx((0.01 + 0.02 * n) * factor, rel=0.1)


def test_a_slow_step_or_three_are_no_other_pace() -> None:
    model = learnt([(2, 256, 0.05)] * 40)
    for _ in range(PACE_STEPS // 2 - 1):
        model = model.observe(StepWork.full(2, 256), 5.0)
    assert predict(model, 2, 256) == pytest.approx(0.05, rel=0.01)


def test_noise_and_another_pace_are_doubt() -> None:
    assert CostModel().doubt == 1.0
    calm = learnt([(2, 256, 0.05)] * 40)
    assert calm.doubt == pytest.approx(0.0, abs=1e-3)
    noisy = learnt([(2, 256, 0.05 * (1.0 + 0.1 * (k % 3))) for k in range(60)])
    assert 0.05 < noisy.doubt < 0.4
    assert noisy.rested().doubt == noisy.doubt


def test_memory_is_bounded() -> None:
    model = learnt([(forwards, 256, 0.01 * forwards) for forwards in range(1, 200)])
    assert len(model.cells) == MAX_CELLS
    newest = list(model.cells.values())[-1]
    assert newest.work[0] == pytest.approx(199 * 256, rel=0.03)


def test_full_batches_of_different_sizes_are_never_taken_for_one() -> None:
    model = learnt([(forwards, 256, 0.01 * forwards) for forwards in range(1, 46)])
    assert len(model.cells) == 45


def masked(computed: int, loaded: int = 0) -> StepWork:
    return StepWork.of(1, computed, 1024, loaded)


def truth(work: StepWork) -> float:
    return 0.01 + 2e-5 * work.tokens + 1e-8 * work.pairs + 5e-11 * work.loaded


def test_the_work_of_masked_rows_adds_up() -> None:
    work = masked(100, 7) + masked(200)
    assert work == StepWork(300, 300 * 1024, 7)
    assert work - masked(200) == masked(100, 7)
    assert StepWork.of(2, 1024, 1024) == StepWork.full(2, 1024)


def test_masked_tokens_and_loads_are_learnt() -> None:
    model = CostModel()
    sizes = [(m, b) for m in (32, 100, 300, 1024) for b in (0, 10**6, 10**8)]
    for computed, loaded in sizes * 4:
        work = masked(computed, loaded)
        model = model.observe(work, truth(work))
    for computed, loaded in ((64, 5 * 10**7), (512, 0), (700, 2 * 10**8)):
        work = masked(computed, loaded)
        assert model.predict(work) == pytest.approx(truth(work), rel=0.1)


def test_what_masked_images_take_beside_the_arithmetic_is_learnt() -> None:
    model = CostModel()
    for _ in range(8):
        for images in (1, 2, 4):
            work = StepWork.full(images, 256)
            model = model.observe(work, 0.002 + 0.01 * images)
            part = StepWork.of(images, 64, 256, masked=images)
            model = model.observe(part, 0.002 + 0.0025 * images + 0.008 * images)
    for images in (1, 3, 8):
        part = StepWork.of(images, 64, 256, masked=images)
        expected = 0.002 + 0.0105 * images
        assert model.predict(part) == pytest.approx(expected, rel=0.05)
        assert model.predict(StepWork.full(images, 256)) == pytest.approx(
            0.002 + 0.01 * images, rel=0.05
        )


def test_a_masked_row_is_predicted_to_take_less_from_full_ones_alone() -> None:
    model = learnt([(1, 256, 0.1), (1, 1024, 0.4)])
    assert model.predict(masked(100)) < 0.5 * model.predict(masked(1024))


@settings(deadline=None, derandomize=True)
@given(measurements, st.integers(1, 1024), st.integers(0, 10**9))
def test_a_prediction_grows_with_what_is_loaded(
    points: list[tuple[int, int, float]], computed: int, loaded: int
) -> None:
    model = learnt(points)
    assert 0.0 < model.predict(masked(computed)) <= model.predict(masked(computed, loaded))


def test_of_many_different_masks_not_each_is_worth_a_fit() -> None:
    model, fits = CostModel(), 0
    for computed in range(20, 1020, 10):
        model = model.observe(masked(computed), truth(masked(computed)))
        fits += model.unfitted == 0
    assert fits <= MANY + 100 // EVERY
    assert model.predict(masked(500)) == pytest.approx(truth(masked(500)), rel=0.1)


def test_a_model_travels() -> None:
    model = learnt([(2, 256, 0.5), (4, 256, 0.7)])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(model), type=CostModel) == model


def test_promises_count_on_what_slow_steps_took_before_a_rest() -> None:
    work, model = StepWork.full(1, 64), CostModel()
    for seconds in [0.1] * 40 + [0.2] * 40:
        model = model.observe(work, seconds)
    idle = model.rested()
    assert CautiousCost(idle).doubt == UNSEEN
    for _ in range(20):
        idle = idle.observe(work, 0.1)
    assert idle.predict(work) == pytest.approx(0.1, rel=0.05)
    cautious = CautiousCost(idle)
    assert cautious.predict(work) == pytest.approx(0.2, rel=0.05)
    assert cautious.known
    assert cautious.doubt == 0.0
    for _ in range(LATELY):
        idle = idle.observe(work, 0.1)
    assert CautiousCost(idle).predict(work) == pytest.approx(0.1, rel=0.05)
    assert CautiousCost(CostModel()).predict(work) == CostModel().predict(work)


def test_a_host_on_which_all_steps_take_the_same_is_not_doubted_after_a_rest() -> None:
    work, model = StepWork.full(1, 64), CostModel()
    for number in range(80):
        model = model.observe(work, 0.1 + 0.001 * (number % 3))
    assert CautiousCost(model.rested()).doubt == pytest.approx(0.02, abs=0.005)
    few = CostModel()
    for _ in range(PACE_STEPS):
        few = few.observe(work, 0.1)
    assert CautiousCost(few.rested()).doubt == UNSEEN


def test_promises_count_at_once_on_steps_that_have_become_slow() -> None:
    work, model = StepWork.full(1, 64), CostModel()
    for number in range(80):
        model = model.observe(work, 0.1 if number % 20 else 0.15)
    busy = model.rested()
    assert CautiousCost(busy).doubt == UNSEEN  # the host may be busy by now
    for _ in range(PACE_STEPS):
        busy = busy.observe(work, 0.15)
    cautious = CautiousCost(busy)
    assert cautious.doubt == 0.0
    assert cautious.predict(work) == pytest.approx(0.15, rel=0.05)
