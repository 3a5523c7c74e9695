"""Processes that hold one component hold it once, as the kernel counts it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from benchmarks.harness.processes import Resident
from tests.services.denoiser.models import make_unet

LAYERS = (
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
)
PAGE = 4096


class Holder:
    """A process that does one thing at a time, and stands still in between."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() in ("ready\n", "done\n")

    def do(self, word: str) -> None:
        self.tell(word)
        self.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 100 MB as float32."""
    directory = tmp_path_factory.mktemp("model")
    make_unet(block_out_channels=(64, 448), norm_num_groups=32).save_pretrained(directory / "unet")
    return directory


def weights_of(model: Path, dtype: str) -> int:
    size: int = getattr(torch, dtype).itemsize
    return sum(path.stat().st_size for path in model.rglob("*.safetensors")) * size // 4


@pytest.fixture(params=["float32", "bfloat16"])
def holders(
    request: pytest.FixtureRequest, tmp_path: Path, model: Path
) -> Iterator[tuple[str, Path, list[Holder]]]:
    """Their dtype, the directory of the files that they map, and two of them."""
    dtype, converted = request.param, tmp_path / "converted"
    command = [sys.executable, "-m", "tests.shared.models.weights.holder", str(model)]
    with ExitStack() as ends:
        found = []
        for _ in range(2):
            process = ends.enter_context(
                subprocess.Popen(
                    [*command, str(converted), dtype, *LAYERS],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            ends.callback(process.kill)
            found.append(Holder(process))
        for holder in found:
            holder.wait()
        yield dtype, model if dtype == "float32" else converted, found


@pytest.mark.linux
def test_two_processes_hold_one_component_once(
    holders: tuple[str, Path, list[Holder]], model: Path
) -> None:
    dtype, directory, both = holders
    weights = weights_of(model, dtype)
    before = [Resident.of_process(holder.pid) for holder in both]
    for holder in both:
        holder.tell("load")  # at once: one of them converts
    for holder in both:
        holder.wait()
    mapped = [Resident.of_files(holder.pid, directory) for holder in both]
    after = [Resident.of_process(holder.pid) for holder in both]
    assert min(one.rss for one in mapped) > 0.95 * weights
    assert sum(one.pss for one in mapped) < 1.05 * weights
    assert [one.own for one in mapped] == [0, 0]
    for then, now in zip(before, after, strict=True):
        assert now.own - then.own < 0.25 * weights

    merging, other = both
    changed = _changed_bytes(dtype)
    merging.do("merge")
    own = Resident.of_files(merging.pid, directory).own
    assert changed <= own <= changed + 2 * PAGE * len(LAYERS)
    assert Resident.of_files(other.pid, directory).own == 0
    merging.do("restore")
    mapped = [Resident.of_files(holder.pid, directory) for holder in both]
    assert [one.own for one in mapped] == [0, 0]
    assert min(one.rss for one in mapped) > 0.95 * weights
    assert sum(one.pss for one in mapped) < 1.05 * weights


def _changed_bytes(dtype: str) -> int:
    with torch.device("meta"):
        network = make_unet(block_out_channels=(64, 448), norm_num_groups=32)
    size = getattr(torch, dtype).itemsize
    return sum(network.get_submodule(name).weight.numel() * size for name in LAYERS)
