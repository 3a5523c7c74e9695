import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.denoiser.cost import EVERY, MAX_CELLS, MEMORY, CostModel

measurements = st.lists(
    st.tuples(st.integers(1, 64), st.sampled_from([64, 256, 1024, 16384]), st.floats(1e-4, 60.0)),
    max_size=20,
)


def learnt(points: list[tuple[int, int, float]]) -> CostModel:
    model = CostModel()
    for forwards, tokens, seconds in points:
        model = model.observe(forwards, tokens, seconds)
    return model


@settings(deadline=None, derandomize=True)
@given(measurements, st.integers(1, 64), st.sampled_from([64, 256, 16384]))
def test_a_prediction_is_positive_and_grows_with_rows_and_tokens(
    points: list[tuple[int, int, float]], forwards: int, tokens: int
) -> None:
    model = learnt(points)
    seconds = model.predict(forwards, tokens)
    assert 0.0 < seconds <= model.predict(forwards + 1, tokens)
    assert seconds <= model.predict(forwards, tokens + 1)


def test_before_the_first_step_a_prediction_has_a_sensible_size() -> None:
    assert 0.02 < CostModel().predict(2, 256) < 0.2
    assert CostModel().predict(0, 256) == 0.0


def test_one_measurement_sets_the_size_of_all_predictions() -> None:
    model = learnt([(2, 256, 0.5)])
    assert model.predict(2, 256) == pytest.approx(0.5, rel=1e-3)
    assert 0.5 < model.predict(4, 256) < 1.0


def test_a_linear_truth_is_learnt_exactly_enough() -> None:
    def truth(forwards: int, tokens: int) -> float:
        return 0.1 + 3e-5 * forwards * tokens + 2e-8 * forwards * tokens**2

    points = [(f, n, truth(f, n)) for f in (1, 2, 4, 8, 16) for n in (256, 1024)]
    model = learnt(points)
    for forwards in (1, 3, 32):
        for tokens in (256, 512, 1024):
            expected = truth(forwards, tokens)
            assert model.predict(forwards, tokens) == pytest.approx(expected, rel=0.05)


def test_the_batch_curve_of_a_small_network_is_fitted_within_a_fifth() -> None:
    measured = {1: 22.2e-3, 2: 27.5e-3, 4: 33.3e-3, 8: 49.9e-3, 16: 85.5e-3}
    model = learnt([(forwards, 256, seconds) for forwards, seconds in measured.items()])
    for forwards, seconds in measured.items():
        assert model.predict(forwards, 256) == pytest.approx(seconds, rel=0.2)


def test_old_measurements_fade() -> None:
    model = learnt([(2, 256, 1.0)] * 100 + [(2, 256, 0.1)] * 200)
    assert model.predict(2, 256) == pytest.approx(0.1, rel=0.05)


def test_what_was_measured_is_fitted_within_a_few_steps() -> None:
    model = learnt([(2, 256, 0.5)] * 100)
    for _ in range(MEMORY):  # half-way to the new truth, at the latest
        model = model.observe(2, 256, 0.1)
        assert model.unfitted < EVERY
    model = model.observe(4, 256, 0.2)
    assert model.unfitted == 0
    assert model.predict(2, 256) < 0.35


def test_memory_is_bounded() -> None:
    model = learnt([(forwards, 256, 0.01 * forwards) for forwards in range(1, 200)])
    assert len(model.cells) == MAX_CELLS
    assert "199,256" in model.cells


def test_a_model_travels() -> None:
    model = learnt([(2, 256, 0.5), (4, 256, 0.7)])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(model), type=CostModel) == model
