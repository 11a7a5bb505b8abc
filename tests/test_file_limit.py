"""The file limit is raised as far as may be, and said."""

from __future__ import annotations

import sys

import pytest

from hub.file_limit import UNLIMITED, raise_file_limit

resource = pytest.importorskip("resource", reason="no file limit there")


def test_the_file_limit_is_raised_from_soft_to_hard() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert raise_file_limit() == (min(soft, 512), hard)
        assert raise_file_limit() == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_hard_limit_that_is_not_granted_leaves_the_soft_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit() == (256, 256)


def test_where_there_is_no_limit_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert raise_file_limit() == (UNLIMITED, UNLIMITED)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert raise_file_limit() == (UNLIMITED, UNLIMITED)
