"""How a fleet uses a machine that nobody said anything about."""

from itertools import pairwise
from pathlib import Path

import pytest

from services.fleet.plan import machine
from services.fleet.plan.machine import visible_gpus, weights_of, with_layout
from services.fleet.plan.processes import FleetOptions, plan_processes
from shared.policy.fleet_layout import (
    FLEET_BYTES,
    PROCESS_BYTES,
    WEIGHT_COPIES,
    Layout,
    Machine,
    Weights,
    choose_layout,
    denoisers_for,
)
from shared.process.memory import free_memory
from shared.shipped import DEFAULT_MODEL

GB = 10**9
POCKET = Weights(denoising=9 * 10**6, all=15 * 10**6)
SDXL = Weights(denoising=10 * GB, all=14 * GB)
ALONE = Weights(denoising=10 * GB, all=14 * GB, shared=False)
MEMORIES = [GB * size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)]


def chosen(cores: int, memory: int = 1024 * GB, weights: Weights = POCKET) -> tuple[int, int]:
    layout = choose_layout(Machine(cores, memory), weights)
    return layout.denoisers, layout.threads


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, (1, 1)), (2, (2, 1)), (4, (4, 1)), (8, (6, 1)), (16, (4, 3)), (64, (6, 10))],
)
def test_denoisers_and_threads_follow_from_the_cores(cores: int, expected: tuple[int, int]) -> None:
    assert chosen(cores) == expected


@pytest.mark.parametrize("weights", [POCKET, SDXL, ALONE])
def test_no_layout_asks_for_more_than_there_is(weights: Weights) -> None:
    for cores in range(1, 129):
        for memory in MEMORIES:
            denoisers, threads = chosen(cores, memory, weights)
            assert denoisers >= 1
            assert threads >= 1
            assert denoisers * threads <= cores
            needed = FLEET_BYTES + denoisers * PROCESS_BYTES
            further = 0 if weights.shared else denoisers - 1
            needed += WEIGHT_COPIES * (weights.all + further * weights.denoising)
            assert denoisers == 1 or needed <= memory


@pytest.mark.parametrize("weights", [POCKET, SDXL, ALONE])
def test_more_memory_is_never_answered_with_fewer_denoisers(weights: Weights) -> None:
    for cores in range(1, 129):
        found = [chosen(cores, memory, weights)[0] for memory in MEMORIES]
        assert found == sorted(found)
        assert found[-1] == denoisers_for(cores) or weights is ALONE


def test_at_least_half_of_the_cores_compute() -> None:
    for cores in range(1, 129):
        denoisers, threads = chosen(cores)
        assert 2 * denoisers * threads >= cores


def test_a_core_more_means_as_many_denoisers_or_more_threads() -> None:
    layouts = [chosen(cores) for cores in range(1, 129)]
    for (before, threads), (after, more) in pairwise(layouts):
        assert after >= before or more > threads


def test_little_memory_is_what_the_choice_is_explained_by() -> None:
    layout = choose_layout(Machine(4, 36 * GB), ALONE)
    assert str(layout) == "1 denoiser of 3 threads for 36.0 GB of free memory"
    layout = choose_layout(Machine(4, 31 * GB), SDXL)
    assert str(layout) == "1 denoiser of 3 threads for 31.0 GB of free memory"


def test_weights_whose_pages_are_shared_count_once_on_a_host() -> None:
    assert chosen(4, 36 * GB, SDXL) == (4, 1)
    assert chosen(4, 36 * GB, ALONE) == (1, 3)


def test_a_model_that_is_still_to_be_fetched_gets_one_denoiser() -> None:
    layout = choose_layout(Machine(8, 1024 * GB), Weights(0, 0))
    assert (layout.denoisers, layout.threads) == (1, 7)
    assert "not known" in layout.reason


@pytest.mark.parametrize(("gpus", "denoisers"), [((), 1), (("0",), 1), (("0", "1", "2"), 3)])
def test_each_gpu_gets_a_denoiser(gpus: tuple[str, ...], denoisers: int) -> None:
    layout = choose_layout(Machine(16, GB, gpu=True, devices=gpus), SDXL)
    assert layout.denoisers == denoisers


def test_what_a_user_chose_goes_before_ours() -> None:
    two = Machine(2, 64 * GB)
    assert choose_layout(two, POCKET, denoisers=3) == Layout(3, 1, "as chosen")
    assert choose_layout(two, POCKET, denoisers=1, threads=2) == Layout(1, 2, "as chosen")
    assert choose_layout(two, POCKET, threads=2).denoisers == 1  # or two would share each core


def test_a_layout_is_one_line_in_words() -> None:
    assert str(Layout(2, 1, "for 2 cores")) == "2 denoisers of 1 thread each for 2 cores"
    assert str(Layout(1, 3, "for 1 GPU")) == "1 denoiser of 3 threads for 1 GPU"


def test_options_get_the_layout_and_its_processes_the_threads() -> None:
    options, layout = with_layout(FleetOptions(cores=2), {})
    assert (layout.denoisers, layout.threads) == (options.replicas["denoiser"], 1)
    names = [spec.name for spec in plan_processes(options, "nats://here:1", {})]
    assert sum(name.startswith("denoiser") for name in names) == layout.denoisers


@pytest.mark.parametrize(("disk", "denoisers"), [("1000000000", 4), ("0", 1)])
def test_weights_that_are_not_kept_on_disk_count_in_each_denoiser(
    disk: str, denoisers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "weights_of", lambda sources: Weights(GB, 2 * GB))
    monkeypatch.setattr(machine, "free_memory", lambda: 9 * GB)
    _, layout = with_layout(FleetOptions(cores=4), {"DARKROOM_WEIGHTS_DISK_BYTES": disk})
    assert layout.denoisers == denoisers


def test_options_that_say_how_many_denoisers_keep_them() -> None:
    given = FleetOptions(replicas={"denoiser": 3, "vae": 2}, cores=2)
    options, layout = with_layout(given, {"DARKROOM_THREADS": "4"})
    assert options.replicas == given.replicas
    assert str(layout) == "3 denoisers of 4 threads each as chosen"


def test_denoisers_are_spread_over_the_gpus() -> None:
    options, _ = with_layout(
        FleetOptions(replicas={"denoiser": 3}),
        {"DARKROOM_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "4,7"},
    )
    specs = plan_processes(options, "nats://here:1", {"CUDA_VISIBLE_DEVICES": "4,7"})
    found = {spec.name: spec.environment["CUDA_VISIBLE_DEVICES"] for spec in specs}
    assert [found[f"denoiser-{number}"] for number in (1, 2, 3)] == ["4", "7", "4"]
    assert found["vae"] == "4,7"


def test_a_gpu_that_was_named_is_not_spread_over() -> None:
    environ = {"DARKROOM_DEVICE": "cuda:1", "CUDA_VISIBLE_DEVICES": "4,7"}
    options, layout = with_layout(FleetOptions(), environ)
    assert (layout.denoisers, options.devices) == (1, ())


def test_gpus_are_counted_without_loading_cuda(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ("0", "1")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}, tmp_path) == ("GPU-a", "GPU-b")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()


def test_free_memory_is_no_more_than_the_container_has(tmp_path: Path) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:  2000 kB\nMemAvailable:  1000 kB\nHugePages_Total:  0\n")
    assert free_memory(meminfo, limit) == 1_024_000
    limit.write_text("max\n")
    assert free_memory(meminfo, limit) == 1_024_000
    limit.write_text("4096\n")
    assert free_memory(meminfo, limit) == 4096


def test_a_models_weights_are_counted_from_its_files(tmp_path: Path) -> None:
    found = weights_of((DEFAULT_MODEL,))
    assert 0 < found.denoising < found.all
    assert weights_of((DEFAULT_MODEL, DEFAULT_MODEL)).denoising == 2 * found.denoising
