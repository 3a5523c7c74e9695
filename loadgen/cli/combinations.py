"""Options that would be silently ignored beside others are refused."""

from loadgen.cli.options import LoadOptions
from shared.errors import InvalidRequest


def check_combinations(options: LoadOptions, users: int | None) -> None:
    """Raises `InvalidRequest` naming the option. `users`: of a closed loop, if it is one."""
    when = {
        "--rate": options.rate,
        "--arrivals": options.arrivals,
        "--cv": options.cv,
        "--burst-factor": options.burst_factor,
        "--burst-at": options.burst_at,
        "--burst-seconds": options.burst_seconds,
    }
    for name, value in when.items():
        if value is not None and options.trace is not None:
            raise InvalidRequest(name, value, "nothing beside --trace, which says when")
        if value is not None and users is not None:
            raise InvalidRequest(name, value, "nothing beside --users, who ask when they like")
        if value is not None and name.startswith("--burst") and options.arrivals != "burst":
            raise InvalidRequest(name, value, "only with --arrivals burst")
    if options.trace is not None and options.duration is not None:
        raise InvalidRequest("--duration", options.duration, "nothing beside --trace")
    if options.trace is not None and users is not None:
        raise InvalidRequest("--users", users, "nothing beside --trace, which says when")
    if options.cv is not None and options.arrivals in ("constant", "poisson"):
        raise InvalidRequest("--cv", options.cv, f"nothing beside {options.arrivals} arrivals")
