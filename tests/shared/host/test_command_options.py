"""Options that commands share in groups read like options of their own."""

from dataclasses import dataclass
from typing import Annotated

import msgspec
import typer
from typer.testing import CliRunner

from shared.host.command_options import with_option_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    width: Annotated[int, typer.Option(min=1)] = 3
    names: Annotated[list[str] | None, typer.Option("--name")] = None


class Colour(msgspec.Struct, frozen=True, kw_only=True):
    colour: Annotated[str | None, typer.Option(help="A word.")] = None


def command() -> typer.Typer:
    app = typer.Typer()

    @with_option_groups
    def paint(
        thing: Annotated[str, typer.Argument()], shape: Shape, colour: Colour, twice: bool = False
    ) -> None:
        """Paint something."""
        print(thing, shape.width, list(shape.names or ()), colour.colour, twice)

    app.command()(paint)
    return app


def printed(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(command(), words)
    assert result.exit_code == code
    return result.output.strip()


def test_groups_have_their_defaults_and_what_the_command_line_says() -> None:
    assert printed("a") == "a 3 [] None False"
    words = ("a", "--width", "2", "--name", "x", "--name", "y", "--colour", "red", "--twice")
    assert printed(*words) == "a 2 ['x', 'y'] red True"


def test_bounds_and_help_are_those_of_the_fields() -> None:
    assert "--width" in printed("a", "--width", "0", code=2)
    text = printed("--help")
    assert "Paint something." in text
    assert all(word in text for word in ("--width", "--name", "--colour", "A word.", "--twice"))
