"""What `from darkroom import ...` offers: all that a user of the client meets, and nothing else."""

import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType

import msgspec

import darkroom
import shared.client
import shared.messages
from darkroom import outcomes
from shared import errors
from shared.client import job
from shared.client.calls import _TRANSLATED

ROOT = Path(__file__).parent.parent


def structs_in(annotation: object) -> Iterator[type[msgspec.Struct]]:
    """Structs that a value of this type may be or hold."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
        for inner in typing.get_type_hints(annotation).values():
            yield from structs_in(inner)
    for inner in typing.get_args(annotation):
        yield from structs_in(inner)


def test_every_name_that_is_promised_is_there_once() -> None:
    for face in (darkroom, outcomes):
        assert sorted(set(face.__all__)) == face.__all__
        assert [name for name in face.__all__ if not hasattr(face, name)] == []


def test_the_old_ways_to_the_client_lead_to_the_same_things() -> None:
    assert darkroom.Darkroom is shared.client.Darkroom
    assert darkroom.GenerationRequest is shared.messages.GenerationRequest
    assert darkroom.JobFailed is errors.JobFailed
    assert outcomes.JobFailed is shared.messages.JobFailed


def test_whatever_a_request_holds_and_a_job_tells_can_be_imported() -> None:
    assert isinstance(job.Item, UnionType)
    met = {*structs_in(darkroom.GenerationRequest), *structs_in(job.Item)}
    assert len(met) > 8
    offered = {getattr(face, name) for face in (darkroom, outcomes) for name in face.__all__}
    assert met - offered == set()


def test_every_error_that_the_client_says_it_raises_can_be_imported() -> None:
    told = {*_TRANSLATED.values(), errors.JobFailed, errors.JobCancelled, errors.JobNotFound}
    for name in errors.__all__:
        error = getattr(errors, name)
        documented = f"`{name}`"
        for method in (*vars(darkroom.Darkroom).values(), *vars(darkroom.Job).values()):
            method = getattr(method, "__func__", method)
            if documented in (getattr(method, "__doc__", None) or ""):
                told.add(error)
    assert len(told) > 8
    assert {error.__name__ for error in told} - set(darkroom.__all__) == set()


def test_a_client_does_not_import_torch() -> None:
    program = "import sys, darkroom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_the_version_is_written_down_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "darkroom.__version__"
