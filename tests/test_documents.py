"""What documents and docstrings name is there: files, folders, modules, links, decisions."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = ("benchmarks", "darkroom", "loadgen", "pocket", "services", "shared", "tests")
FOLDERS: Final = (*PACKAGES, "docs", ".ci", "deploy")
DOCUMENTS: Final = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("pocket/*.md"))
    if path.name != "CHANGELOG.md"
)
HISTORY: Final = ("docs/log.md",)
"""Documents of what was: the paths in them are those of their time."""

QUOTED: Final = re.compile(r"`([^`\s]+)`")
DOTTED: Final = re.compile(rf"^({'|'.join(PACKAGES)})(\.\w+)*\.(?!json$)\w+$")
MODULE: Final = re.compile(r"^[\w/]+\.py$")
FENCED: Final = re.compile(r"^ *```.*?^ *```", re.M | re.S)
LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
DECISION: Final = re.compile(r"ADRs? (\d+)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def exists(name: str, beside: Path) -> bool:
    """`name` as it is written in the file `beside`: from the root, or from where that is. A part in
    angle brackets, or of asterisks, stands for any."""
    pattern = re.sub(r"<[^>]*>", "*", name.rstrip("/"))
    pattern = re.sub(r"\{([^},]*)[^}]*\}", r"\1", pattern)
    return any(any(place.glob(pattern)) for place in (ROOT, beside.parent))


@cache
def modules() -> str:
    """The paths of all modules of the project, one a line."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return "".join(f"/{relative(path)}\n" for path in paths)


def absent_paths(text: str, beside: Path) -> list[str]:
    """Paths that `text` has in backticks, and that are not there: from the root, or the end of a
    module's path."""
    absent = []
    for name in (name.split("::")[0] for name in QUOTED.findall(text)):
        if "/" in name and name.split("/")[0] in FOLDERS:
            there = exists(name, beside)
        else:
            there = not MODULE.match(name) or f"/{name}\n" in modules()
        if not there:
            absent.append(name)
    return absent


@cache
def defined(path: Path) -> frozenset[str]:
    """What a module defines at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {one.asname or one.name for one in node.names}
        elif isinstance(node, ast.Assign):
            found |= {one.id for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return frozenset(found)


def is_module_or_in_one(name: str) -> bool:
    """Whether `shared.models.contracts.family.Family` is a module, or defined in one."""
    path = ROOT
    parts = name.split(".")
    for number, part in enumerate(parts):
        if (path / part).is_dir():
            path = path / part
            continue
        file = path / f"{part}.py"
        if file.is_file():
            return number + 1 == len(parts) or parts[number + 1] in defined(file)
        return part in defined(path / "__init__.py")
    return True


def docstrings(path: Path) -> Iterator[str]:
    """All texts that stand by themselves in a module, and its comments."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text
    yield from re.findall(r"# .*", source)


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_paths_in_documents_exist(path: Path) -> None:
    if relative(path) not in HISTORY:
        assert absent_paths(FENCED.sub("", path.read_text(encoding="utf-8")), path) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_paths_and_modules_in_docstrings_exist(package: str) -> None:
    absent: dict[str, list[str]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        text = "\n".join(docstrings(path))
        modules = [name for name in QUOTED.findall(text) if DOTTED.match(name)]
        missing = absent_paths(text, path)
        missing += [name for name in modules if not is_module_or_in_one(name)]
        if missing:
            absent[relative(path)] = missing
    assert absent == {}, absent


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    for words, target in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{words}: {target}"
        if heading and file.suffix == ".md":
            assert heading in headings(file), f"{words}: {target}"
        if (number := DECISION.fullmatch(words)) is not None:
            assert file.name.startswith(f"{int(number[1]):04}-"), f"{words}: {target}"


@cache
def headings(path: Path) -> frozenset[str]:
    """The addresses of a document's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.M)
    words = (re.sub(r"[^\w\- ]", "", line.lower()) for line in lines)
    return frozenset(word.replace(" ", "-") for word in words)


def test_decisions_are_numbered_as_their_files_are_and_listed() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = sorted(folder.glob("[0-9]*.md"))
    numbers = [int(path.name[:4]) for path in decisions]
    assert numbers == list(range(1, len(numbers) + 1))
    for number, path in zip(numbers, decisions, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. ")
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in decisions if path.name not in listed] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_decisions_that_code_names_are_there(package: str) -> None:
    most = len(list((ROOT / "docs" / "adr").glob("[0-9]*.md")))
    for path in (ROOT / package).rglob("*.py"):
        for text in docstrings(path):
            assert all(0 < int(number) <= most for number in DECISION.findall(text)), path


def test_what_is_not_there_is_found() -> None:
    here = Path(__file__)
    assert absent_paths("`shared/nowhere.py`, `shared/jobs/`, `a/b`", here) == ["shared/nowhere.py"]
    assert absent_paths("`shared/models/families/<name>/`, `docs/*.md`", here) == []
    assert is_module_or_in_one("shared.jobs.advance.advance")
    assert not is_module_or_in_one("shared.jobs.advance.retreat")
    assert not is_module_or_in_one("shared.nowhere.x")


def test_one_jobs_life_has_at_most_ten_steps_each_with_one_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    life = text.partition("## One job's life")[2].partition("\n## ")[0]
    steps = re.findall(r"^(\d+)\. \*\*\w+\*\* \(`([^`]+)`\)\.", life, re.M)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == len(re.findall(r"^\d+\. ", life, re.M)) <= 10
    assert all((ROOT / folder).is_dir() for _, folder in steps)
