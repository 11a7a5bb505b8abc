"""How often a test tries what chance decides: a little in `make test`, a lot in `make torture`."""

from __future__ import annotations

import os

import pytest
from _pytest.mark.structures import ParameterSet

TORTURE = os.environ.get("TORTURE", "") not in {"", "0"}
"""Whether this is `make torture`: what is marked with `torture` is run too, and hypothesis tries more."""


def seeds(few: int, many: int, first: int = 0) -> list[int | ParameterSet]:
    """Return the seeds of a test, beginning with *first*: *few* of them, and in `make torture` all of *many*."""
    more = [pytest.param(seed, marks=pytest.mark.torture) for seed in range(first + few, first + many)]
    return [*range(first, first + few), *more]


def examples(few: int, many: int) -> int:
    """Return how many examples hypothesis tries: *few*, and in `make torture` *many*."""
    return many if TORTURE else few
