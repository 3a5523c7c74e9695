"""Options that several commands share."""

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="NATS_URL", help="The fleet's bus; else the one running here."),
]
