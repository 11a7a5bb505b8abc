"""What a hub has confirmed outlives it, whenever it is killed; `python -m tests.torture` does the same for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import torture

ROUNDS = 5


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_killed_hub_loses_nothing_and_repeats_nothing(tmp_path: Path, seed: int):
    result = await torture.run(tmp_path, seed)
    assert result.lives == torture.LIVES
    assert result.connections > len(torture.SUBSCRIPTIONS)
