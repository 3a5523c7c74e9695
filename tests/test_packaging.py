"""What a newcomer and a container rely on before any code runs."""

import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from shared.policy.fleet_layout import Machine, Weights, choose_layout
from shared.services import SERVICES, reading

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)$")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Normalised name to version; fails on a line that is neither a comment nor a pin."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        match = PIN.match(line)
        assert match, f"constraints.txt: {line!r} is no plain pin"
        found[normal(match[1])] = match[2]
    return found


def project() -> dict[str, object]:
    content: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def needed_by(requirements: list[str]) -> set[str]:
    """Names of all that installing `requirements` here brings, direct and transitive."""
    found: set[str] = set()
    waiting = [(requirement, "") for requirement in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = normal(requirement.name)
        found.add(name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(line, wanted) for line in distribution(name).requires or ()]
    return found


def test_everything_that_is_installed_with_us_is_pinned() -> None:
    declared = project()
    direct = [*declared["dependencies"], *declared["optional-dependencies"]["dev"]]  # type: ignore[misc,index]
    assert len(needed_by(direct)) > len(direct)
    assert needed_by(direct) - pins().keys() == set()


def test_torch_is_the_version_that_was_agreed_on() -> None:
    assert pins()["torch"] == "2.13.0"


def test_what_does_not_compute_does_not_import_torch() -> None:
    modules = (
        "loadgen.cli.command",
        "services.fleet.cli.app",
        "services.gateway.__main__",
        "services.planner.__main__",
    )
    program = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(module)\n"
        "    assert 'torch' not in sys.modules, module\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_is_where_pyproject_says() -> None:
    module, function = project()["scripts"]["darkroom"].split(":")  # type: ignore[index]
    assert callable(getattr(importlib.import_module(module), function))


def test_ci_runs_make_test() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_compose_has_a_scalable_block_per_service_on_one_shared_memory() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = compose["services"]
    present = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")} - {"fleet"}
    assert SERVICES.keys() == present
    assert services.keys() == {"nats", "keys", *SERVICES}
    for name in SERVICES:
        block = services[name]
        assert block["command"] == [f"services.{name}"]
        assert block["healthcheck"]["test"][-1] == name
        assert block["depends_on"]["nats"]["condition"] == "service_healthy"
        assert "arenas:/run/darkroom" in block["volumes"]
        assert "container_name" not in block  # or it could not be scaled
    assert compose["volumes"]["arenas"]["driver_opts"]["type"] == "tmpfs"
    [published] = services["gateway"]["ports"]
    assert published.startswith("127.0.0.1:")


def test_in_compose_all_that_hold_weights_share_them() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    place = compose["x-environment"]["DARKROOM_WEIGHTS_DIR"]
    mounting = {
        name
        for name, block in compose["services"].items()
        if f"weights:{place}" in block.get("volumes", ())
    }
    assert mounting == set(reading("tensors"))
    assert f" {place} " in (ROOT / "Dockerfile").read_text()  # whose owner and mode it takes on


def test_compose_runs_what_darkroom_up_chooses_for_two_cores() -> None:
    text = (ROOT / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    best = choose_layout(Machine(2, 1 << 40), Weights(1, 2))
    replicas = compose["services"]["denoiser"]["deploy"]["replicas"]
    assert replicas == f"${{DARKROOM_DENOISERS:-{best.denoisers}}}"
    threads = compose["x-environment"]["DARKROOM_THREADS"]
    assert threads == f"${{DARKROOM_THREADS:-{best.threads}}}"
    for variable in ("DARKROOM_DENOISERS", "DARKROOM_THREADS"):
        assert f"#   {variable} " in text


def test_in_compose_each_service_mounts_its_own_keys_and_no_others() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    dockerfile = (ROOT / "Dockerfile").read_text()
    made = {volume.partition(":")[2] for volume in compose["services"]["keys"]["volumes"]}
    for name, block in compose["services"].items():
        if name == "keys":
            continue
        mounted = [volume for volume in block["volumes"] if volume.startswith("keys")]
        assert mounted == [f"keys-{name}:/run/keys/{name}:ro"]
        assert f"/run/keys/{name}" in made
        assert f"/run/keys/{name}" in dockerfile  # whose owner and mode the volume takes on
        if name != "nats":
            assert block["environment"]["DARKROOM_CREDENTIALS"] == f"/run/keys/{name}"
    gateway = compose["services"]["gateway"]["environment"]
    for variable in ("DARKROOM_TOKENS", "DARKROOM_HTTP_CERT", "DARKROOM_HTTP_KEY"):
        assert gateway[variable].startswith("/run/keys/gateway/")
    assert compose["x-environment"]["DARKROOM_NATS_URL"] == "${DARKROOM_NATS_URL:-tls://nats:4222}"


def test_the_image_has_one_base_that_can_be_chosen_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "ARG BASE_IMAGE=python:3.11-slim" in lines
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM ${BASE_IMAGE}"]
    assert "USER darkroom" in lines


def test_the_image_has_all_that_is_installed_in_it() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {pattern.rstrip("*") for pattern in setuptools["packages"]["find"]["include"]}
    read = {project()["readme"], *project()["license-files"]}  # type: ignore[misc]
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = set(" ".join(copied).split())
    assert (packages - {"benchmarks"}) | read <= names
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in names if f"!{name}" not in ignored] == []
