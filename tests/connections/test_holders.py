from hub.connections.holders import NOBODY, Holder, Holders


class Stream:
    """A stream, as far as its holder is concerned."""

    def __init__(self, id: str, holder: Holder = NOBODY, address: str = "") -> None:
        self.id, self.holder, self.address = id, holder, address


def test_the_streams_of_a_user_are_found_the_oldest_first():
    holders = Holders[Stream]()
    streams = [Stream(str(number), Holder("ann")) for number in range(4)]
    other = Stream("x", Holder("bob"))
    for stream in (*streams, other):
        holders.add(stream)
    assert (holders.of("ann"), holders.count("ann")) == (streams, 4)
    assert (holders.of("bob"), holders.count("bob")) == ([other], 1)
    assert (holders.of("eve"), holders.count("eve")) == ([], 0)
    holders.remove(streams[0])
    holders.remove(streams[2])
    assert holders.of("ann") == [streams[1], streams[3]]
    holders.add(streams[0])
    assert holders.of("ann") == [streams[1], streams[3], streams[0]]


def test_addresses_are_counted_as_what_they_count_as():
    holders = Holders[Stream](lambda address: address.partition(":")[0])
    streams = [Stream(address, address=address) for address in ("a:1", "a:2", "b:1", "", ":1")]
    for stream in streams:
        holders.add(stream)
    assert [holders.at(address) for address in ("a:9", "b:9", "c:9", "", ":9")] == [2, 1, 0, 0, 0]
    holders.remove(streams[0])
    assert holders.at("a:9") == 1


def test_nothing_is_left_of_those_who_have_gone():
    holders = Holders[Stream]()
    streams = [Stream(str(number), Holder(f"user {number % 3}"), f"address {number % 5}") for number in range(30)]
    for stream in (*streams, Stream("anonymous")):
        holders.add(stream)
    for stream in (*streams[::2], *streams[1::2]):
        holders.remove(stream)
    assert (holders._users, holders._addresses) == ({}, {})
