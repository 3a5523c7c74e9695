"""Where a process may listen without being asked for more."""

import pytest

from shared.errors import Misconfigured
from shared.security.binding import is_loopback, refuse_unprotected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("192.168.1.7", False),
        ("fe80::1%lo", False),
        ("no such name.invalid", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_refusal_names_what_is_missing_and_nothing_else() -> None:
    with pytest.raises(Misconfigured) as refused:
        refuse_unprotected("the door", "0.0.0.0", {"A_LOCK": True, "A_KEY": False})
    assert "the door would listen on '0.0.0.0'" in str(refused.value)
    assert "set A_KEY, or listen on 127.0.0.1" in str(refused.value)
    assert "A_LOCK" not in str(refused.value)


def test_loopback_needs_nothing_and_full_protection_opens_everything() -> None:
    refuse_unprotected("the door", "127.0.0.1", {"A_KEY": False})
    refuse_unprotected("the door", "0.0.0.0", {"A_KEY": True})
