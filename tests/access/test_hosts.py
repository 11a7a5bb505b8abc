import pytest

from hub.access.hosts import Hosts, name_of
from hub.errors import WrongHost

HOSTS = Hosts(["hub.example.com", "Other.Example:8080", "[2001:db8::7]"])


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost:8080", "localhost.", "app.localhost:1", "127.0.0.1", "127.9.9.9:65535"),
        *("[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]"),
        *("hub.example.com", "HUB.example.com:443", "hub.example.com.", "other.example", "[2001:db8::7]:9"),
        None,
    ],
)
def test_loopback_names_and_those_allowed_are_answered(host: str | None):
    HOSTS.check(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "example.com", "x.hub.example.com", "hub.example.com.evil.example"),
        *("localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "1127.0.0.1", "0.0.0.0"),
        *("127.0.0.1@evil.example", "evil.example@127.0.0.1", "localhost/evil", "localhost evil", "localhost:80:80"),
        *("", ":8080", "[::1", "::1", "[::2]", "[::ffff:1.2.3.4]", "192.168.0.1", "localhost\x00", "a" * 10_000),
        *("lоcalhost", "127.0.0.1\n", "*", "2130706433", "0x7f.1"),
    ],
)
def test_any_other_name_is_refused(host: str):
    with pytest.raises(WrongHost):
        HOSTS.check(host)


def test_addresses_can_be_names_of_it_but_not_what_looks_like_one():
    hosts = Hosts(["hub-admin"], addresses=True)
    for host in ("192.168.0.1:9090", "[fd00::1]", "hub-admin:9090", "localhost"):
        hosts.check(host)
    for host in ("192.168.0.1.evil.example", "2130706433", "1.2.3", "evil.example", "[fd00::1].evil.example"):
        with pytest.raises(WrongHost):
            hosts.check(host)


def test_a_refusal_is_short_and_shows_no_control_characters():
    with pytest.raises(WrongHost) as caught:
        HOSTS.check("\x1b[2J" + "a" * 10_000)
    assert len(str(caught.value)) < 250
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "http://a", "a:b", "[x]", "*.example.com:x"])
def test_what_is_no_host_has_no_name(host: str):
    assert name_of(host) is None
