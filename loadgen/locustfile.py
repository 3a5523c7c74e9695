"""The same requests for those who live in Locust: its users, its web UI, its statistics.

    locust -f loadgen/locustfile.py --host http://127.0.0.1:8080
    locust -f loadgen/locustfile.py --host http://127.0.0.1:8080 --headless -u 4 -r 1 -t 60s

A closed loop: a user waits for its image, thinks, and asks again, so a slow server is asked less.
For what users would see at a rate of their own choosing, use `darkroom load`. Token and authority
are found as it finds them.
"""

import itertools
from argparse import ArgumentParser
from pathlib import Path
from random import Random
from typing import Final

from locust import HttpUser, events, task

from loadgen.outcomes.outcome import Shot
from loadgen.targets.base import HTTP_FIELDS, OPENAI_FIELDS
from loadgen.targets.choose import chosen
from loadgen.targets.images import PATH, answer, body
from loadgen.workload.files import load_workload
from loadgen.workload.workload import Workload, requests

_NUMBERS: Final = itertools.count()


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--workload", default="", help="TOML or JSON file; its mix is what counts")
    parser.add_argument("--think", type=float, default=1.0, help="mean seconds between requests")
    parser.add_argument(
        "--response-format", default="", help="b64_json (the default), url, or none: not sent"
    )
    parser.add_argument("--plain", action="store_true", help="send OpenAI's own fields only")


events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]


class ImageUser(HttpUser):
    """Asks for images; each user has a stream of requests of its own."""

    def on_start(self) -> None:
        options = self.environment.parsed_options
        workload = load_workload(Path(options.workload)) if options.workload else Workload()
        number = next(_NUMBERS)
        self._requests = requests(workload, f"user/{number}")
        self._thoughts = Random(f"{workload.seed}/think/{number}")
        self._takes = OPENAI_FIELDS if options.plain else HTTP_FIELDS
        kind = "openai" if options.plain else "darkroom"
        server = chosen(
            kind, self.host, also=frozenset(), response_format=options.response_format or None
        )
        self._format = server.response_format
        if server.api_key:
            self.client.headers["Authorization"] = f"Bearer {server.api_key}"
        if (trusted := server.certificate or server.ca) is not None:
            self.client.verify = str(trusted)

    def wait_time(self) -> float:
        think: float = self.environment.parsed_options.think
        return self._thoughts.expovariate(1 / think) if think > 0 else 0.0

    @task
    def generate(self) -> None:
        tenant, name, request = next(self._requests)
        shot = Shot(0, 0.0, tenant, name, request)
        with self.client.post(
            f"/v1{PATH}", json=body(shot, self._takes, self._format), name=name, catch_response=True
        ) as reply:
            how = answer(reply.status_code, reply.content or b"", request.n)
            if how.status == "done":
                reply.success()
            else:
                reply.failure(str(how.failure))
