"""The tree is the architecture: what may import what, read from the imports themselves."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = ("pocket", "shared", "loadgen", "services", "benchmarks")

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


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """The project's modules that the file at `path` imports, at any place in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module and node.module in modules():
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
        (node.name, name)
        for name, path in modules().items()
        if name.startswith(f"services.{service}.")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert twice(classes) == {}
