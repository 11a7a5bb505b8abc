"""The listening sockets: opened for a host and a port, or received."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.cli import sockets
from hub.cli.sockets import Received, bound_sockets, close_all, received_sockets, shown, slots, without_received
from hub.errors import InvalidSettings


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def started_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Pretends that the process was started with descriptors: it gets duplicates, in a row."""
    duplicates: list[int] = []

    def started_with(*fds: int, names: str = "", pid: int | None = None) -> Received:
        base = max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 10
        for place, fd in enumerate(fds):
            os.dup2(fd, base + place)
            duplicates.append(base + place)
        monkeypatch.setattr(sockets, "FIRST_RECEIVED", base)
        environ = {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names}
        received = received_sockets(environ)
        for sock in (*received.users, *received.admin):
            duplicates.remove(sock.fileno())
        return received

    yield started_with
    for fd in duplicates:
        os.close(fd)


def test_each_address_of_a_host_gets_the_same_port():
    found = bound_sockets("localhost", 0)
    try:
        assert {sock.getsockname()[1] for sock in found} == {found[0].getsockname()[1]}
        assert found[0].getsockname()[1]
        assert {sock.family for sock in found} <= {socket.AF_INET, socket.AF_INET6}
    finally:
        close_all(found)
    assert found == []


def test_a_port_that_is_taken_is_the_error_of_the_system(listener: socket.socket):
    with pytest.raises(OSError, match="in use"):
        bound_sockets("127.0.0.1", listener.getsockname()[1])


@pytest.fixture
def three() -> Iterator[list[list[socket.socket]]]:
    made = slots("localhost", 0, 3)
    yield made
    for each in made:
        close_all(each)


def test_all_slots_have_the_same_addresses_and_the_first_one_takes_the_port(three: list[list[socket.socket]]):
    addresses = [[sock.getsockname() for sock in each] for each in three]
    assert addresses[0] == addresses[1] == addresses[2]
    port = addresses[0][0][1]
    for attempt in (lambda: slots("localhost", port, 2), lambda: bound_sockets("localhost", port)):
        with pytest.raises(OSError, match="in use"):
            attempt()
    assert not any(os.get_inheritable(sock.fileno()) for each in three for sock in each)


def test_what_waits_in_a_slot_is_for_whoever_has_its_socket_next(three: list[list[socket.socket]]):
    found = [each[0] for each in three]
    for sock in found:
        sock.listen(512)
    kept = [sock.dup() for sock in found]
    clients = [socket.create_connection(found[0].getsockname()[:2]) for _ in range(300)]
    for each in three:
        close_all(each)
    counts = [accepted(sock) for sock in kept]
    for sock in (*kept, *clients):
        sock.close()
    assert sum(counts) == 300
    assert min(counts) > 50, counts  # the kernel's hash: 100 are expected, and 50 are six standard deviations away


def accepted(listener: socket.socket) -> int:
    """Accept whatever waits; return how many."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_slots_of_a_port_that_is_taken_are_the_error_of_the_system(listener: socket.socket):
    with pytest.raises(OSError, match="in use"):
        slots("127.0.0.1", listener.getsockname()[1], 2)


def test_sockets_are_received_by_name(started_with, listener: socket.socket):
    with socket.create_server(("127.0.0.1", 0)) as other:
        received = started_with(listener.fileno(), other.fileno(), names="hub.socket:admin")
        try:
            assert [sock.getsockname() for sock in received.users] == [listener.getsockname()]
            assert [sock.getsockname() for sock in received.admin] == [other.getsockname()]
            assert received.settings() == {
                "host": "127.0.0.1",
                "port": listener.getsockname()[1],
                "admin_host": "127.0.0.1",
                "admin_port": other.getsockname()[1],
            }
            assert not any(os.get_inheritable(sock.fileno()) for each in received for sock in each)
        finally:
            for each in received:
                close_all(each)


def test_what_is_meant_for_another_process_is_left_alone(started_with, listener: socket.socket):
    assert started_with(listener.fileno(), pid=1) == ([], [])
    assert received_sockets({}) == ([], [])
    assert Received([], []).settings() == {}


def test_the_address_that_most_can_reach_counts(started_with, listener: socket.socket):
    with socket.create_server(("0.0.0.0", 0)) as exposed:
        received = started_with(listener.fileno(), exposed.fileno())
        try:
            assert received.settings() == {"host": "0.0.0.0", "port": exposed.getsockname()[1]}
        finally:
            close_all(received.users)


def test_what_is_no_socket_is_refused(started_with):
    read, write = os.pipe()
    with pytest.raises(InvalidSettings, match="is not a socket that connections can be accepted from"):
        started_with(read)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(InvalidSettings):
        started_with(datagrams.fileno())
    for fd in (read, write):
        os.close(fd)


@pytest.mark.parametrize("count", ["", "-1", "x", "65", "²"])
def test_a_number_that_is_none_is_refused(count: str):
    with pytest.raises(InvalidSettings, match="is not a number of sockets"):
        received_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_a_child_is_not_told_what_its_parent_received():
    assert without_received({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "HOME": "/"}) == {"HOME": "/"}


def test_addresses_are_shown_as_urls(listener: socket.socket, tmp_path):
    assert shown(listener, "https") == f"https://127.0.0.1:{listener.getsockname()[1]}"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        assert shown(unix, "http") == f"unix:{tmp_path}/s"
        assert Received([unix], []).settings() == {"port": 0}
    if socket.has_ipv6:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
            assert shown(six, "http") == f"http://[::1]:{six.getsockname()[1]}"
