import logging

import pytest

from hub.access.addresses import Addresses
from hub.proxies import Proxies

ADDRESSES = Addresses(Proxies("", ["10.0.0.0/8", "2001:db8:ffff::/48", "unix"]))


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_address_is_counted_as_what_one_client_has(address: str, counted: str):
    assert ADDRESSES.counted(address) == counted


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "10.1.2.3", "2001:db8:ffff::7", "nonsense"]
)
def test_loopback_unix_sockets_and_trusted_proxies_are_not_limited(address: str):
    assert ADDRESSES.counted(address) == ""


def test_the_client_behind_trusted_proxies_is_who_the_outermost_one_names():
    assert ADDRESSES.client("10.0.0.1", ["6.6.6.6, 192.0.2.7, 10.0.0.2"]) == "192.0.2.7"
    assert ADDRESSES.client("", ["192.0.2.7"]) == "192.0.2.7"
    assert ADDRESSES.client("192.0.2.9", []) == "192.0.2.9"


def test_one_who_is_not_trusted_speaks_only_for_itself_which_is_told_once(caplog: pytest.LogCaptureFixture):
    addresses = Addresses(Proxies("", ["10.0.0.1"]))
    with caplog.at_level(logging.WARNING):
        addresses.client("10.0.0.1", ["192.0.2.7"])
        addresses.client("192.0.2.9", [])
        assert caplog.messages == []
        for _ in range(3):
            assert addresses.client("192.0.2.9", ["192.0.2.7"]) == "192.0.2.9"
    (message,) = caplog.messages
    assert "192.0.2.9" in message
    assert "HUB_TRUSTED_PROXIES" in message
