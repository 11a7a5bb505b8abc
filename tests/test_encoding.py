"""How things look on a wire; and a wire of a new kind, as one new class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import pytest

from hub.connections.client_stream import CloseReason
from hub.encoding import (
    SSE,
    Attendance,
    Drop,
    Encoding,
    End,
    Envelope,
    Gap,
    GapReason,
    Opening,
    Present,
    Topics,
    retry_between,
)
from hub.eventstream import LAST_CHUNK, chunk
from hub.notification import Draft, Notification, Position
from hub.web.socketio.packets import Packets
from hub.wires import Format, Lines, Messages
from tests.connections.test_connection import Desk, quiet
from tests.spec_decoder import SpecDecoder
from tests.wire import dechunk

HERE = Position("e", 7)
OPENING = Opening("c_1", ("a", "b/*"), HERE, True, None, 2_500)
GAP = Gap(GapReason.TRIMMED, Position("e", 5))
NOTIFICATION = Notification.accept(Draft.of({"a": 1}, topic="t", type="x"), HERE, 0.0)


@pytest.mark.parametrize("envelope", [False, True])
def test_without_chunks_the_bytes_are_those_inside_the_chunks(envelope: bool):
    chunked, bare = SSE(envelope), SSE(envelope, chunked=False)
    assert dechunk(chunked.notification(NOTIFICATION, "t")) == bare.notification(NOTIFICATION, "t")
    assert chunk(bare.opening(OPENING)) == chunked.opening(OPENING)
    assert chunk(bare.gap(GAP)) == chunked.gap(GAP)
    assert chunk(bare.drop(Drop(2, HERE, HERE))) == chunked.drop(Drop(2, HERE, HERE))
    assert chunk(bare.attendance(Attendance("a", 1, [ANN]))) == chunked.attendance(Attendance("a", 1, [ANN]))
    assert chunk(bare.join("a", ANN)) == chunked.join("a", ANN)
    assert chunk(bare.leave("a", ANN)) == chunked.leave("a", ANN)
    assert chunk(bare.heartbeat(HERE)) == chunked.heartbeat(HERE)
    assert chunk(bare.end(End("shutdown", 9))) + LAST_CHUNK == chunked.end(End("shutdown", 9))


def test_an_opening_and_its_gap_are_one_chunk():
    opening = SSE().opening(OPENING._replace(recovered=False, gap=GAP))
    first, second = SpecDecoder().feed(dechunk(opening))
    assert opening.count(b"\r\n") == 2
    assert json.loads(first.data) == {
        "connection": "c_1",
        "topics": ["a", "b/*"],
        "recovered": False,
        "reason": "trimmed",
        "oldest": "e-5",
    }
    assert (second.type, json.loads(second.data)["oldest"]) == ("hub.gap", "e-5")


def test_a_notification_looks_like_its_ready_made_chunk_only_where_that_is_said():
    for encoding in (SSE(), SSE(envelope=True), SSE(chunked=False)):
        assert (encoding.notification(NOTIFICATION, "t") == NOTIFICATION.chunk) is encoding.takes_chunks


ANN = Present("ann", {"name": "Ann\u2028"}, 1_700_000_000.5)
BOB = Present("b\rob", {}, 0.0)


def test_who_is_there_is_told_without_an_id():
    told = SSE().attendance(Attendance("room/x", 2, [ANN, BOB])) + SSE().join("room/x", ANN) + SSE().leave("a", BOB)
    events = list(SpecDecoder().feed(b"id: e-7\n\n" + dechunk(told)))
    assert [(event.type, event.id) for event in events] == [
        ("hub.presence", "e-7"),
        ("hub.join", "e-7"),
        ("hub.leave", "e-7"),
    ]
    assert [json.loads(event.data) for event in events] == [
        {
            "topic": "room/x",
            "count": 2,
            "users": [
                {"id": "ann", "info": {"name": "Ann\u2028"}, "since": "2023-11-14T22:13:20.500Z"},
                {"id": "b\rob", "info": {}, "since": "1970-01-01T00:00:00.000Z"},
            ],
        },
        {"topic": "room/x", "user": "ann", "info": {"name": "Ann\u2028"}},
        {"topic": "a", "user": "b\rob"},
    ]


def test_a_reader_who_may_not_know_who_is_there_is_told_how_many():
    (event,) = SpecDecoder().feed(dechunk(SSE().attendance(Attendance("a", 3, None))))
    assert json.loads(event.data) == {"topic": "a", "count": 3}


def test_the_end_of_a_body_may_have_no_blocks():
    assert (SSE().last(b""), SSE(chunked=False).last(b"")) == (LAST_CHUNK, b"")


def test_a_time_to_come_back_is_random_within_its_bounds():
    times = {retry_between(1, 2) for _ in range(200)}
    assert len(times) > 50
    assert 1_000 <= min(times) <= max(times) <= 2_000


@dataclass(frozen=True)
class ToyLines:
    """A toy: one line of JSON for each thing."""

    takes_chunks: bool = False
    names_all_topics: bool = False
    ids: bool = True

    def without_ids(self) -> ToyLines:
        return replace(self, ids=False)

    def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
        id = notification.id if self.ids else None
        return self._line(id=id, topic=topics[0], data=notification.data)

    def opening(self, opening: Opening) -> bytes:
        return self._line(
            open=str(opening.position), recovered=opening.recovered, gap=opening.gap and opening.gap.reason
        )

    def topics(self, topics: Topics) -> bytes:
        return self._line(topics=topics.topics, begin=str(topics.position), gap=topics.gap and topics.gap.reason)

    def gap(self, gap: Gap) -> bytes:
        return self._line(gap=gap.reason)

    def drop(self, drop: Drop) -> bytes:
        return self._line(dropped=drop.number, after=str(drop.after), before=str(drop.before))

    def attendance(self, attendance: Attendance) -> bytes:
        return self._line(on=attendance.topic, count=attendance.number)

    def join(self, topic: str, who: Present) -> bytes:
        return self._line(join=topic, user=who.id)

    def leave(self, topic: str, who: Present) -> bytes:
        return self._line(leave=topic, user=who.id)

    def heartbeat(self, newest: Position) -> bytes:
        return self._line(newest=str(newest))

    def end(self, end: End) -> bytes:
        return self._line(end=end.reason)

    def _line(self, **facts: object) -> bytes:
        return json.dumps(facts).encode() + b"\n"


LINES: Encoding = ToyLines()


def test_two_kinds_of_encodings_are_never_equal():
    """Else a reader would be given the bytes of another wire."""
    switches = list(product((False, True), repeat=3))
    kinds: list[set[object]] = [
        {SSE(*each) for each in switches}
        | {SSE(envelope, *two) for envelope in Envelope for two in product((False, True), repeat=2)},
        {Lines(*each) for each in switches},
        {Messages(format, *two) for format in Format for two in product((False, True), repeat=2)},
        {Packets(ids) for ids in (False, True)},
        {ToyLines(*each) for each in switches},
    ]
    assert sum(map(len, kinds)) == len(set().union(*kinds))


async def test_a_new_wire_is_one_new_class():
    desk = Desk()
    for number in range(1, 4):
        desk.send("a", data=number)
    resumed = desk.connect("e-1", ("a",), LINES)
    foreign = desk.connect("f-1", ("a",), LINES)
    desk.send("a", data=4)
    await quiet()
    resumed.connection._touched = resumed.connection._audience.touched = -1e9  # type: ignore[union-attr]  # long ago
    desk.streams.sweep()
    resumed.connection.end(CloseReason.SHUTDOWN, 1_000)
    assert [json.loads(line) for line in resumed.transport.received.splitlines()] == [
        {"open": "e-1", "recovered": True, "gap": None},
        *({"id": f"e-{number}", "topic": "a", "data": number} for number in (2, 3, 4)),
        {"newest": "e-4"},
        {"end": "shutdown"},
    ]
    first, *rest = [json.loads(line) for line in foreign.transport.received.splitlines()]
    assert first == {"open": "e-0", "recovered": False, "gap": "epoch"}
    assert [each["data"] for each in rest if "data" in each] == [1, 2, 3, 4]
