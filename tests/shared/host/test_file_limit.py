"""The gateway's bound on requests is the one that is met first, not the kernel's on files."""

import resource

import pytest

from services.gateway.http.core import MAX_REQUESTS, OPEN_FILES
from shared.host.file_limit import enough, raise_file_limit

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "set_to"),
    [
        (1024, 4096, 1536),
        (1024, UNLIMITED, 1536),
        (1024, 1200, 1200),
        (2000, 4096, 2000),
        (UNLIMITED, UNLIMITED, UNLIMITED),
    ],
)
def test_the_limit_is_raised_as_far_as_it_is_needed_and_allowed(
    soft: int, hard: int, set_to: int
) -> None:
    assert enough(soft, hard, 1536) == set_to


def test_there_is_room_for_more_connections_than_requests_may_wait() -> None:
    assert OPEN_FILES > MAX_REQUESTS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert raise_file_limit(400) == 400
        assert raise_file_limit(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
