"""Controls on a command line: a ControlNet's name, a file, and perhaps a scale."""

from pathlib import Path

import pytest

from shared.errors import InvalidRequest
from shared.media.control_files import read_controls
from shared.messages import ControlChoice


@pytest.mark.parametrize(
    ("file", "suffix", "scale"),
    [
        ("a.png", "", 1.0),
        ("a.png", ":0.5", 0.5),
        ("a.png", ":-1e-1", -0.1),
        ("a:b.png", "", 1.0),
        ("a:b.png", ":2", 2.0),
        ("7", "", 1.0),
        ("a=b.png", "", 1.0),
    ],
)
def test_a_scale_is_what_is_behind_the_last_colon_if_it_is_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, suffix: str, scale: float
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_bytes(b"a picture")
    [choice] = read_controls([f"edges={file}{suffix}"], "--control")
    assert choice == ControlChoice(model="edges", image=b"a picture", scale=scale)


@pytest.mark.parametrize("text", ["edges", "edges=", "=a.png", ""])
def test_half_a_control_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--control: .*edges=house\.png:0\.8"):
        read_controls([text], "--control")


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere\.png.*No such file"):
        read_controls([f"edges={tmp_path}/nowhere.png"], "--control")
    with pytest.raises(InvalidRequest, match="Is a directory"):
        read_controls([f"edges={tmp_path}"], "--control")
