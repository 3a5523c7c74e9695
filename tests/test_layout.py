"""The tree is the architecture: what may import what, read from the imports themselves."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from shared.services import SERVICES

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = ("pocket", "shared", "darkroom", "loadgen", "services", "benchmarks")

_LAYERS: Final = """
    pocket
    pocket/train/common pocket/train/sdxl pocket/train/flux pocket/train

    shared/errors
    shared
    shared/security shared/host shared/host/forking
    shared/messages
    shared/media
    shared/bus shared/bus/nats
    shared/telemetry
    shared/policy/residency shared/residency
    shared/models/files shared/models/samplers
    shared/models/weights
    shared/models/lowrank
    shared/models/contracts
    shared/models/families/unet
    shared/models/families/sd shared/models/families/sdxl shared/models/families/flux
    shared/models/families
    shared/models/loras/sources
    shared/models
    shared/models/loras
    shared/tensors
    shared/jobs
    shared/policy/block_plan shared/policy/components shared/policy shared/policy/release
    shared/policy/placement
    shared/client
    shared/worker
    shared/process

    darkroom

    loadgen/outcomes
    loadgen/workload
    loadgen/report/statistics loadgen/report/page loadgen/report
    loadgen/targets
    loadgen/runs
    loadgen/simulator/profiles loadgen/simulator/cluster loadgen/simulator/systems
    loadgen/simulator/studies loadgen/simulator
    loadgen/cli
    loadgen

    services
    services/denoiser/sampling
    services/denoiser/rows
    services/denoiser/forward
    services/denoiser/controlnet services/denoiser/mask_cache services/denoiser/loras
    services/denoiser/engine
    services/denoiser/cfg_parallel
    services/denoiser/node
    services/denoiser
    services/gateway/http
    services/gateway/openai/kinds
    services/gateway/openai
    services/gateway/replies
    services/gateway/routes
    services/gateway/openapi
    services/gateway
    services/planner services/placement services/prompt_encoder services/controlnet services/vae
    services/fleet/access
    services/fleet/plan
    services/fleet/supervisor
    services/fleet/dead_letters
    services/fleet/cli
    services/fleet

    benchmarks/harness
    benchmarks/baselines
    benchmarks/serving benchmarks/cold_lora benchmarks/controlnet benchmarks/hops benchmarks/plan
    benchmarks/fidelity
    benchmarks/simulate
    benchmarks
    benchmarks/editing benchmarks/edit_fidelity benchmarks/swift benchmarks/overload
"""
LAYERS: Final = _LAYERS.split()
"""Folders with modules: each may import what stands before it, and itself."""
MOST_MODULES: Final = 15
"""In one folder, `__init__.py` not counted."""
CROWDED: Final[Mapping[str, tuple[int, str]]] = {}
"""Folders that may have more: how many, and why."""
ALONE: Final = tuple(SERVICES)
"""Services that import no other one; the fleet starts and checks them."""
MOST_PARAMETERS: Final = 7
"""Of a constructor."""
NOT_PURE: Final = frozenset(
    {"asyncio", "nats", "services", "socket", "subprocess", "time", "torch"}
)
"""What no decision imports."""

GENERAL: Final = (
    "services.denoiser.__main__",
    "services.denoiser.engine",
    "services.denoiser.forward",
    "services.denoiser.node",
    "services.denoiser.rows",
    "services.denoiser.service",
    "shared.policy.batching",
    "shared.policy.row_view",
    "shared.policy.step_scheduler",
)
"""What computes rows, whatever features they have."""
NAMES_FEATURES: Final = {
    "services.denoiser.node.features": "the one list of them",
    "services.denoiser.node.source_image": "an edit's image and its mask are what a row begins as",
}
FEATURE: Final = re.compile(
    r"lora|adapter|\bbank|merg|control|residual|mask(?!_?blend)|template|cfg_|assist", re.IGNORECASE
)
"""Words of features. `MaskBlend` is a row's own, as is the image that it begins from."""

Edges = Mapping[str, frozenset[str]]


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the project but its tests, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@dataclass(frozen=True, slots=True)
class Source:
    """What is asked of a file; the rest of its tree would be a burden to the collector."""

    imports: Sequence[ast.Import | ast.ImportFrom]
    """At any place in it."""
    classes: Sequence[str]
    constructors: Mapping[int, int]
    """How many parameters each has, by its line."""


@cache
def source(path: Path) -> Source:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return Source(
        [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)],
        [node.name for node in nodes if isinstance(node, ast.ClassDef)],
        {
            node.lineno: len([*node.args.args[1:], *node.args.kwonlyargs])
            for node in nodes
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        },
    )


def imported(path: Path) -> Iterator[str]:
    """The project's modules that the file at `path` imports, at any place in it."""
    for node in source(path).imports:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in modules())
        elif node.module and node.module in modules():
            for one in node.names:
                submodule = f"{node.module}.{one.name}"
                yield submodule if submodule in modules() else node.module


@cache
def imports() -> Edges:
    """What each module imports of the project."""
    return {name: frozenset(imported(path)) - {name} for name, path in modules().items()}


def circles(edges: Edges) -> list[list[str]]:
    """Groups of nodes each of which leads to all others of its group. `edges` name every node."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        stack.append(node)
        for other in edges[node]:
            if other not in index:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def twice(each: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names that occur at several places, of pairs of a name and its place."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for name, place in each:
        places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_circles_are_found() -> None:
    edges = {"a": "b", "b": "c", "c": "b", "d": "a", "e": "f", "f": "e"}
    assert circles({node: frozenset(to) for node, to in edges.items()}) == [["b", "c"], ["e", "f"]]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(imports()) == []


@pytest.mark.parametrize("service", sorted(p.name for p in (ROOT / "services").glob("[a-z]*")))
def test_no_class_name_is_used_twice_in_a_service(service: str) -> None:
    classes = (
        (kind, name)
        for name, path in modules().items()
        if name.startswith(f"services.{service}.")
        for kind in source(path).classes
        if not kind.startswith("_")
    )
    assert twice(classes) == {}


def folder(module: str) -> str:
    return modules()[module].parent.relative_to(ROOT).as_posix()


def between_folders(depth: int = 9) -> Edges:
    """What each folder imports of others, seen from so many levels below the root."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, others in imports().items():
        at = "/".join(folder(name).split("/")[:depth])
        found[at] |= {"/".join(folder(other).split("/")[:depth]) for other in others} - {at}
    return {at: frozenset(others) for at, others in found.items()}


def upward(edges: Edges, layers: Sequence[str]) -> list[str]:
    """Imports of what stands later in `layers`."""
    rank = {name: number for number, name in enumerate(layers)}
    return sorted(
        f"{name} imports {other}"
        for name, others in edges.items()
        for other in others
        if rank[other] > rank[name]
    )


@cache
def outside(path: Path) -> set[str]:
    """The packages that the file at `path` imports, by the first part of their names."""
    found = set()
    for node in source(path).imports:
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        else:
            found.add((node.module or "").partition(".")[0])
    return found


def reached(name: str) -> set[str]:
    """The modules that are imported with module `name`, itself and packages around them too."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module and module not in found:
            found.add(module)
            waiting += [module.rpartition(".")[0], *imports()[module]]
    return found


def decisions() -> list[str]:
    return [name for name in modules() if f"{name}.".startswith("shared.policy.")]


def test_imports_upward_are_found() -> None:
    edges = {"low": frozenset({"high"}), "high": frozenset({"low"})}
    assert upward(edges, ("low", "high")) == ["low imports high"]


def test_every_folder_has_its_layer() -> None:
    found = {folder(name) for name in modules()}
    assert found - set(LAYERS) == set()
    assert set(LAYERS) - found == set()


def test_imports_go_down_the_layers() -> None:
    assert upward(between_folders(), LAYERS) == []


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_no_folders_import_each_other_in_a_circle(depth: int) -> None:
    assert circles(between_folders(depth)) == []


@pytest.mark.parametrize("service", ALONE)
def test_a_service_imports_no_other_service(service: str) -> None:
    own = f"services.{service}"
    others = {
        f"{name} imports {other}"
        for name, found in imports().items()
        for other in found
        if f"{name}.".startswith(f"{own}.")
        and other.startswith("services.")
        and not f"{other}.".startswith(f"{own}.")
    }
    assert others == set()


def test_no_folder_is_crowded() -> None:
    paths = [*modules().values(), *(ROOT / "tests").rglob("*.py")]
    names = (path.parent.relative_to(ROOT).as_posix() for path in paths if path.stem != "__init__")
    counts = Counter(names)
    most = {name: CROWDED.get(name, (MOST_MODULES, ""))[0] for name in counts}
    assert {name: count for name, count in counts.items() if count > most[name]} == {}


@pytest.mark.parametrize("name", decisions())
def test_decisions_know_no_torch_no_bus_and_no_clock(name: str) -> None:
    assert outside(modules()[name]) & NOT_PURE == set()
    met = {module for module in reached(name) if outside(modules()[module]) & {"nats", "torch"}}
    assert met == set()
    assert not any(f"{module}.".startswith("shared.bus.") for module in reached(name))


def general() -> list[str]:
    """Those of `GENERAL`, and what is below them."""
    below = tuple(f"{name}." for name in GENERAL)
    return [name for name in modules() if f"{name}.".startswith(below)]


@pytest.mark.parametrize("name", sorted(set(general()) - set(NAMES_FEATURES)))
def test_what_computes_rows_names_no_feature_of_rows(name: str) -> None:
    lines = modules()[name].read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if FEATURE.search(line)] == []


def test_the_exceptions_name_features_and_the_words_are_those_of_all_of_them() -> None:
    for name in NAMES_FEATURES:
        assert FEATURE.search(modules()[name].read_text(encoding="utf-8")), name
    for folder_name in ("cfg_parallel", "controlnet", "loras", "mask_cache"):
        assert FEATURE.search(folder_name)
        assert f"services/denoiser/{folder_name}" in LAYERS


def test_no_constructor_takes_more_than_seven_parameters() -> None:
    """Those that would are made of objects which have a name of their own."""
    crowded = {
        f"{name}:{line}": count
        for name, path in modules().items()
        for line, count in source(path).constructors.items()
        if count > MOST_PARAMETERS
    }
    assert crowded == {}
