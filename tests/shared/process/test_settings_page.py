"""`docs/settings.md`: it is what the settings say, and they say what is so."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from shared.config import Settings
from shared.process.settings_page import COLUMNS, OTHERS, page, rows

ROOT = Path(__file__).parents[3]
OURS = ("shared", "services", "loadgen", "pocket")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
ENTRIES = {
    path.parent.name: f"services.{path.parent.name}.__main__"
    for path in (ROOT / "services").glob("*/__main__.py")
} | {"fleet": SCRIPTS["darkroom"].partition(":")[0]}
"""The module that each service begins with."""
PROPERTIES = {
    "sources": "models",
    "lora_directories": "loras",
    "control_sources": "controls",
    "template_memory": "arena_dir",
    "lora_origins": "lora_hosts",
}
"""Of `Settings`: by which field each is made."""

TABLE = {row[0].strip("`").removeprefix("DARKROOM_").lower(): row for row in rows()}


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
    return found[0] if found else None


@dataclass(frozen=True)
class Facts:
    """What is asked of a module; the rest of its tree would be a burden to the collector."""

    imports: frozenset[str]
    """Modules of ours, anywhere in it."""
    read: frozenset[str]
    """Settings that its code reads as a field of something called settings."""
    named: frozenset[str]
    """Settings whose variable it spells: it may read them, or set them for others."""


@cache
def facts(module: str) -> Facts:
    file = file_of(module)
    assert file is not None
    nodes = list(ast.walk(ast.parse(file.read_text())))
    read = {n.attr for n in nodes if isinstance(n, ast.Attribute) and _is_settings(n.value)}
    texts = [str(node.value) for node in nodes if isinstance(node, ast.Constant)]
    return Facts(
        frozenset(name for node in nodes for name in _imported(node)),
        frozenset({PROPERTIES.get(name, name) for name in read} & TABLE.keys()),
        frozenset({t[9:].lower() for t in texts if t.startswith("DARKROOM_")} & TABLE.keys()),
    )


def _imported(node: ast.AST) -> Iterator[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return (name for name in names if name.split(".")[0] in OURS and file_of(name))


def _is_settings(value: ast.expr) -> bool:
    match value:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name in ("settings", "_settings")
        case ast.Call(ast.Attribute(ast.Name("Settings"), "from_env"), [], []):
            return True
    return False


@cache
def reached(service: str) -> frozenset[str]:
    """Modules that the service may run."""
    seen: set[str] = set()
    waiting = [ENTRIES[service]]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += facts(module).imports
    return frozenset(seen)


def test_the_page_is_what_the_settings_say() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == page(), "`make settings` writes docs/settings.md anew"


def test_every_setting_is_on_the_page_with_all_that_is_to_be_known_of_it() -> None:
    assert [*TABLE] == [*Settings.__struct_fields__]
    for name, row in TABLE.items():
        known = dict(zip(COLUMNS, row, strict=True))
        assert all(known[column] for column in COLUMNS if column != "unit"), name
        assert known["what it does"].endswith("."), name
        if name.endswith("_seconds") or name.endswith("_bytes"):
            assert known["unit"] == name.rpartition("_")[2]


@pytest.mark.parametrize("service", sorted(ENTRIES))
def test_a_service_reads_what_the_page_says(service: str) -> None:
    said = {name for name, row in TABLE.items() if service in row[-1].split(", ")}
    met = [facts(module) for module in reached(service)]
    possible = {name for one in met for name in one.read | one.named}
    own = [module for module in reached(service) if module.startswith(f"services.{service}.")]
    assert said - possible == set()
    assert {name for module in own for name in facts(module).read} - said == set()


def test_every_variable_that_the_code_names_is_on_the_page() -> None:
    known = {f"DARKROOM_{name.upper()}" for name in TABLE} | OTHERS.keys()
    for folder in OURS:
        for file in (ROOT / folder).rglob("*.py"):
            named = set(re.findall(r"\bDARKROOM_[A-Z_]+[A-Z]\b", file.read_text()))
            assert named - known == set(), file
