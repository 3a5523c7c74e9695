"""Files come to memory piece by piece, within what the loader may move."""

from pathlib import Path

import pytest

from shared.residency.item import PIECE_BYTES, Item, at_once
from shared.residency.loader import Loader
from shared.residency.read_ahead import read_ahead
from tests.conftest import HANG_SECONDS


def written(tmp_path: Path, name: str, size: int) -> Path:
    path = tmp_path / name
    path.write_bytes(bytes(size))
    return path


def test_all_files_are_read_in_pieces(tmp_path: Path) -> None:
    files = [written(tmp_path, "a", PIECE_BYTES + 1), written(tmp_path, "b", 3)]
    assert list(read_ahead(files)) == [PIECE_BYTES, 1, 3]
    assert at_once(read_ahead(files)) == PIECE_BYTES + 4


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        at_once(read_ahead([tmp_path / "gone"]))


def test_what_is_read_counts_at_the_loader(tmp_path: Path, loader: Loader) -> None:
    file = written(tmp_path, "a", 1000)
    load = loader.bring(Item("a", 1000, lambda: read_ahead([file])))
    assert load.future.result(HANG_SECONDS) == 1000
    assert loader.reading().moved == 1000
