"""Hubs on one Redis lose nothing, and repeat nothing, whatever breaks; or they say so.

`python -m tests.cluster` does the same with a larger crowd, with Sentinels, and with many rounds of random faults.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.cluster.faults import FAULTS, connections_reset, network_cut, redis_paused, suffer
from tests.cluster.traffic import Load

pytestmark = pytest.mark.slow

LOAD = Load(publishers=6, rate=100.0, readers=16)


@pytest.mark.parametrize("name", ["redis killed", "hub killed"])
async def test_nothing_is_lost_nor_said_to_be(name: str):
    outcome = await suffer(FAULTS[name], 1, LOAD)
    assert outcome.connections >= LOAD.readers
    assert not outcome.verdict.gaps


async def test_streams_stay_open_while_redis_stands_still():
    fault = FAULTS["redis paused"]._replace(happens=partial(redis_paused, seconds=1.0))
    outcome = await suffer(fault, 1, LOAD)
    assert outcome.connections == LOAD.readers
    assert outcome.refused


async def test_calls_and_answers_that_are_lost_with_their_connection_make_neither_losses_nor_doubles():
    fault = FAULTS["connections reset"]._replace(happens=partial(connections_reset, times=40))
    assert not (await suffer(fault, 1, LOAD)).verdict.gaps


async def test_a_hub_that_did_not_reach_redis_for_a_while_has_missed_nothing():
    fault = FAULTS["network cut"]._replace(happens=partial(network_cut, times=1))
    assert not (await suffer(fault, 1, LOAD)).verdict.gaps


async def test_what_a_replica_has_confirmed_survives_the_master():
    assert not (await suffer(FAULTS["promoted by hand"], 1, LOAD)).vanished


@pytest.mark.parametrize("name", ["promoted by hand, writes lost", "everything lost"])
async def test_whoever_has_seen_what_is_lost_is_told_of_a_gap(name: str):
    outcome = await suffer(FAULTS[name], 1, LOAD)
    assert outcome.vanished
    assert outcome.verdict.gaps >= LOAD.readers
