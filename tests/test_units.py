"""The order of tests, and which of them stay together."""

from pathlib import Path

from tests.units import FIRST, FLEETS, in_order, unit_of

ROOT = Path(__file__).parent.parent


def test_a_unit_is_a_file_or_all_files_that_share_a_fleet() -> None:
    assert unit_of("tests/shared/test_a.py::test_b[c/d::e]") == "tests/shared/test_a.py"
    assert unit_of("tests/e2e/test_demo.py::test_a") == unit_of("tests/e2e/test_flux.py::test_b")
    assert unit_of("tests/e2e/test_keys.py::test_a") == unit_of("tests/e2e/test_pairs.py::test_b")
    assert unit_of("tests/e2e/test_readme.py::test_a") != unit_of("tests/e2e/test_keys.py::test_b")


def test_long_units_begin_and_each_is_in_one_piece() -> None:
    nodeids = [
        "tests/shared/test_z.py::test_1",
        "tests/e2e/test_keys.py::test_1",
        "tests/e2e/test_demo.py::test_1",
        "tests/e2e/test_pairs.py::test_1",
        "tests/e2e/test_flux.py::test_1",
        "tests/shared/test_a.py::test_1",
    ]
    order = in_order(nodeids)
    assert sorted(order) == list(range(len(nodeids)))
    units = [unit_of(nodeids[index]) for index in order]
    assert units[:4] == ["tests/e2e", "tests/e2e", "tests/e2e, secured", "tests/e2e, secured"]
    assert [nodeids[index] for index in order[4:]] == [nodeids[5], nodeids[0]]


def test_what_is_named_is_there() -> None:
    for file in (*FLEETS, *FIRST):
        assert (ROOT / file).exists(), file
