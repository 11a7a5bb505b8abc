"""Deadlines without sockets, under a clock that is moved by hand; tests/cli shows them on real ones."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from hub.errors import TooSlow
from hub.metrics import Metrics
from hub.web.body import read_body
from hub.web.deadlines import Deadlines


class Peer:
    """A connection that remembers how it was closed."""

    def __init__(self) -> None:
        self.is_cut = self.is_closed = False
        self.answers = True

    def cut(self) -> None:
        self.is_cut = True

    def close(self) -> None:
        self.is_closed = True


class Body:
    """A body that is complete when the test says so."""

    def __init__(self, *, complete: bool = False) -> None:
        self.complete = complete
        self.error: BaseException | None = None

    def is_eof(self) -> bool:
        return self.complete

    def set_exception(self, error: BaseException) -> None:
        self.error = error

    def feed_eof(self) -> None:
        self.complete = True


class Desk:
    """Deadlines of 10 s for headers and 30 s for bodies."""

    def __init__(self) -> None:
        self.now = 100.0
        self.metrics = Metrics()
        self.deadlines = Deadlines(self.metrics, header=10, body=30, now=lambda: self.now)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.deadlines.sweep()


def test_a_connection_without_the_headers_of_a_request_is_cut_however_much_trickles():
    desk, peer = Desk(), Peer()
    desk.deadlines.begun(peer)
    for _ in range(9):
        desk.after(1)
        desk.deadlines.begun(peer)  # a byte
    assert not peer.is_cut
    desk.after(1)
    assert peer.is_cut
    assert (len(desk.deadlines), desk.metrics.slow_requests) == (0, 1)


def test_headers_that_came_in_time_are_enough():
    desk, peer = Desk(), Peer()
    desk.deadlines.begun(peer)
    desk.after(9.9)
    desk.deadlines.headers_came(peer, Body(complete=True))
    assert len(desk.deadlines) == 0
    desk.after(3600)
    assert not peer.is_cut


def test_the_next_request_of_a_connection_has_its_own_time():
    desk, peer = Desk(), Peer()
    desk.deadlines.begun(peer)
    desk.deadlines.headers_came(peer, Body(complete=True))
    desk.after(3600)
    desk.deadlines.begun(peer)
    desk.after(9.9)
    assert not peer.is_cut
    desk.after(0.2)
    assert peer.is_cut


def test_a_body_that_is_late_is_an_error_for_whoever_reads_it():
    desk, peer, body = Desk(), Peer(), Body()
    desk.deadlines.headers_came(peer, body)
    for _ in range(29):
        desk.after(1)
        desk.deadlines.begun(peer)  # a byte
    assert body.error is None
    desk.after(1)
    assert isinstance(body.error, TooSlow)
    assert (body.error.status, str(body.error)) == (408, "the body was not complete within 30 seconds")
    assert peer.is_closed
    assert not peer.is_cut
    assert (len(desk.deadlines), desk.metrics.slow_requests) == (0, 1)


def test_a_late_body_that_nobody_wants_ends_its_connection():
    desk, peer, body = Desk(), Peer(), Body()
    desk.deadlines.headers_came(peer, body)
    peer.answers = False
    desk.after(31)
    assert peer.is_cut
    assert body.error is None


def test_a_body_that_came_in_time_is_forgotten():
    desk, peer, body = Desk(), Peer(), Body()
    desk.deadlines.headers_came(peer, body)
    body.complete = True
    desk.after(1)
    assert len(desk.deadlines) == 0
    desk.after(3600)
    assert body.error is None


def test_one_that_has_gone_is_forgotten():
    desk, peer, body = Desk(), Peer(), Body()
    desk.deadlines.begun(peer)
    desk.deadlines.forget(peer)
    desk.deadlines.headers_came(peer, body)
    desk.deadlines.forget(peer)
    desk.deadlines.forget(peer)
    desk.after(3600)
    assert not peer.is_cut
    assert body.error is None


async def test_what_came_of_a_body_is_not_taken_for_the_whole_where_a_chunk_ends_with_the_time():
    loop, desk, peer = asyncio.get_running_loop(), Desk(), Peer()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    content = StreamReader(protocol, 2**16, loop=loop)
    request = make_mocked_request("POST", "/", headers={"Transfer-Encoding": "chunked"}, payload=content)
    desk.deadlines.headers_came(peer, content)
    content.begin_http_chunk_receiving()
    content.feed_data(b"[]")
    reading = asyncio.create_task(read_body(request))
    await asyncio.sleep(0)
    assert content.total_bytes == 2
    assert not content._buffer, "it waits for more"
    content.end_http_chunk_receiving()  # wakes it
    desk.after(30)
    with pytest.raises(TooSlow):
        await reading
