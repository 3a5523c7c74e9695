"""Tests that need something of their machine say so, and run where it is."""

import sys

import pytest

from tests.needs import NEEDS, missing


def test_what_is_here_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert missing(["root", "parametrize"]) == []
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert missing(["root", "linux", "chromium"]) == ["chromium", "linux", "root"]
    monkeypatch.setattr("shutil.which", lambda name: name if name == "chromium" else None)
    assert missing(["chromium"]) == []


def test_every_need_is_a_registered_marker(pytestconfig: pytest.Config) -> None:
    registered = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert NEEDS.keys() <= registered
