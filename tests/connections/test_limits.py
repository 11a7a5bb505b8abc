"""How many streams one user and one address may hold, whatever kind they are of."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hub.connections.client_stream import ClientStream, CloseReason, StreamFacts, StreamKind
from hub.connections.holders import NOBODY, Holder
from hub.encoding import Limit
from hub.settings import PerUser
from tests.connections.test_client_stream import Desk, each_kind, end_told
from tests.fakes import FakeTransport

ANN, BOB = Holder("ann"), Holder("bob")
HANDLER = StreamKind.HANDLER


def last_word(kind: StreamKind, transport: FakeTransport) -> tuple[Any, int | None]:
    """Return the data of `hub.close`, and its `retry`, of a stream of *kind*."""
    received = bytes(transport.received)
    retries = re.findall(rb'(?:retry: |"retry":)([0-9]+)', received)
    return end_told(kind, received.removeprefix(b"headers;")), int(retries[-1])


def is_open(stream: ClientStream) -> bool:
    return stream.closed_because is None


@each_kind
async def test_a_user_who_holds_as_many_as_allowed_is_refused_another(kind: StreamKind):
    desk = Desk(per_user=2)
    for _ in range(2):
        desk.open(HANDLER, holder=ANN)
    assert desk.streams.lacks_room("ann", "") is not None
    stream, transport = desk.open(kind, holder=ANN)
    assert stream.closed_because is CloseReason.CAPACITY
    facts, retry = last_word(kind, transport)
    assert facts == {"reason": "capacity", "limit": "max_per_user"}
    assert retry is not None
    assert 10_000 <= retry <= 60_000
    assert desk.metrics.refused == 1


async def test_others_do_not_feel_it_and_a_stream_that_has_gone_makes_room():
    desk = Desk(per_user=1)
    _, transport = desk.open(HANDLER, holder=ANN)
    for holder in (BOB, NOBODY, NOBODY):
        assert is_open(desk.open(HANDLER, holder=holder)[0])
    transport.lose()
    assert desk.streams.lacks_room("ann", "") is None
    assert is_open(desk.open(HANDLER, holder=ANN)[0])


@each_kind
async def test_the_oldest_of_a_user_gives_way_and_is_told_to_stay_away(kind: StreamKind):
    desk = Desk(per_user=2, policy=PerUser.OLDEST)
    other, _ = desk.open(kind, holder=BOB)
    (first, told), (second, _), (third, _) = (desk.open(kind, holder=ANN) for _ in range(3))
    assert first.closed_because is CloseReason.REPLACED
    assert last_word(kind, told) == ({"reason": "replaced"}, 86_400_000)
    assert is_open(other)
    assert is_open(second)
    assert is_open(third)
    told.lose()
    desk.open(kind, holder=ANN)
    assert second.closed_because is CloseReason.REPLACED
    assert is_open(third)


async def test_those_replaced_who_take_nothing_do_not_pile_up():
    desk = Desk(per_user=3, policy=PerUser.OLDEST)
    streams = [desk.open(HANDLER, holder=ANN, capacity=0) for _ in range(50)]
    assert [is_open(stream) for stream, _ in streams] == [False] * 47 + [True] * 3
    assert len(desk.streams) <= 2 * 3 + 1
    assert all(transport.aborted for _, transport in streams[:40])


async def test_one_who_is_refused_for_another_reason_replaces_nobody():
    desk = Desk(per_user=1, policy=PerUser.OLDEST, limit=1)
    first, _ = desk.open(HANDLER, holder=ANN)
    second, transport = desk.open(HANDLER, holder=ANN)
    assert is_open(first)
    assert second.closed_because is CloseReason.CAPACITY
    assert last_word(HANDLER, transport)[0] == {"reason": "capacity"}


async def test_an_address_that_holds_as_many_as_allowed_is_refused_another():
    desk = Desk(per_address=2, counted=lambda address: address.rpartition(".")[0])
    for _ in range(2):
        desk.open(HANDLER, holder=Holder(address="a.1"))
    stream, transport = desk.open(HANDLER, holder=Holder("ann", "a.2"))
    assert stream.closed_because is CloseReason.CAPACITY
    assert last_word(HANDLER, transport)[0] == {"reason": "capacity", "limit": "max_per_address"}
    for address in ("b.1", "not counted", ""):
        assert desk.streams.lacks_room(None, address) is None
        assert is_open(desk.open(HANDLER, holder=Holder(address=address))[0])
    transport.lose()
    refusal = desk.streams.lacks_room(None, "a.3")
    assert refusal is not None
    assert (refusal.reason, refusal.limit) == (CloseReason.CAPACITY, Limit.MAX_PER_ADDRESS)


async def test_without_limits_nothing_is_refused():
    desk = Desk()
    streams = [desk.open(HANDLER, holder=Holder("ann", "a"))[0] for _ in range(100)]
    assert all(map(is_open, streams))
    assert desk.streams.holders.of("ann") == streams
    assert desk.streams.holders.at("a") == 0


@each_kind
async def test_the_facts_of_a_stream_name_its_holder(kind: StreamKind):
    desk, told = Desk(), list[StreamFacts]()
    desk.streams.watch(opened=told.append, closed=told.append)
    _, transport = desk.open(kind, holder=Holder("ann", "192.0.2.7", 1e9))
    transport.lose()
    assert [(facts.user, facts.address) for facts in told] == [("ann", "192.0.2.7")] * 2


@pytest.mark.parametrize("policy", list(PerUser))
async def test_after_a_churn_nobody_is_held(policy: PerUser):
    desk = Desk(per_user=2, policy=policy, per_address=5, counted=str)
    transports = [
        desk.open(HANDLER, holder=Holder(f"user {number % 7}", f"address {number % 11}"))[1] for number in range(200)
    ]
    for transport in transports:
        if not transport.aborted:
            transport.lose()
    assert len(desk.streams) == 0
    assert (desk.streams.holders._users, desk.streams.holders._addresses) == ({}, {})
