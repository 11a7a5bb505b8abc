import pytest
from pydantic import ValidationError

from hub.proxies import MAX_PREFIX, Proxies, encoded_prefix
from hub.settings import Settings

PROXY, OTHER = "10.0.0.7", "192.0.2.9"
BEHIND = Proxies("/live", ["10.0.0.0/8", "2001:db8::/32", "unix"])


@pytest.mark.parametrize("peer", [PROXY, "2001:db8::5", "::ffff:10.0.0.7", ""])
def test_a_trusted_proxy_says_where_it_shows_the_hub(peer: str):
    assert BEHIND.prefix(peer, ["/hub/eu"]) == "/hub/eu"
    assert BEHIND.prefix(peer, ["/hub/"]) == "/hub"
    assert BEHIND.prefix(peer, ["/"]) == ""
    assert BEHIND.prefix(peer, ["/outer, /inner"]) == BEHIND.prefix(peer, ["/outer", "/inner"]) == "/outer/inner"
    assert BEHIND.prefix(peer) == "/live"


@pytest.mark.parametrize("peer", [OTHER, "2001:db9::5", "::ffff:192.0.2.9", "nonsense", "10.0.0.7.example"])
def test_what_others_say_does_not_count(peer: str):
    assert BEHIND.prefix(peer, ["/hub"]) == "/live"
    assert BEHIND.client(peer, [OTHER, "1.2.3.4"]) == peer


def test_nobody_is_trusted_unless_named():
    for peer in (PROXY, OTHER, "127.0.0.1", "::1", ""):
        assert Proxies().prefix(peer, ["/hub"]) == ""
        assert Proxies().client(peer, ["1.2.3.4"]) == peer
    assert Proxies("", ["10.0.0.7"]).prefix("", ["/hub"]) == ""


@pytest.mark.parametrize(
    "told",
    [
        *(
            "//evil.example",
            "/a//b",
            "https://evil.example",
            "evil",
            "\\evil",
            "/\\evil",
            "/a b",
            "/a\r\nSet-Cookie: x",
        ),
        *('/a"b', "/a'b", "/a<b>", "/a?b", "/a#b", "/a;b", "/%", "/%2", "/%zz", "/..", "/a/../b", "/./a", "/%2e%2E/a"),
        *("", "/a,", ",/a", "/a,//b", "/实", "/a" * MAX_PREFIX),
    ],
)
def test_what_can_not_be_a_prefix_does_not_count_even_from_a_trusted_proxy(told: str):
    assert BEHIND.prefix(PROXY, [told]) == "/live"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], PROXY),
        (["1.2.3.4"], "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4"], "1.2.3.4"),  # the first one anybody can invent
        (["6.6.6.6", "1.2.3.4, 10.1.1.1"], "1.2.3.4"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["1.2.3.4:5678"], "1.2.3.4"),
        (["[2001:db9::1]:5678, 2001:db8::2"], "2001:db9::1"),
        (["6.6.6.6, unknown"], PROXY),
        (["6.6.6.6, unknown, 10.1.1.1"], "10.1.1.1"),
        (["x" * 100_000], PROXY),
        ([",,,"], PROXY),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(forwarded: list[str], client: str):
    assert BEHIND.client(PROXY, forwarded) == client


@pytest.mark.parametrize(
    ("written", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("/live", "/live"),
        ("/live/", "/live"),
        ("/a b/实", "/a%20b/%E5%AE%9E"),
        ("/a%20b", "/a%20b"),
    ],
)
def test_a_root_path_is_kept_as_links_have_it(written: str, prefix: str):
    assert Settings(root_path=written).root_path == prefix
    assert Settings.load(environ={"HUB_ROOT_PATH": written}).root_path == prefix
    assert encoded_prefix(prefix or "/") == prefix


@pytest.mark.parametrize(
    "written", ["live", "//live", "/a//b", "https://a/live", "/a?b", "/a#b", "/..", "/a\n", "/%zz"]
)
def test_what_is_no_root_path_is_refused(written: str):
    with pytest.raises(ValidationError, match="is not a path such as /live"):
        Settings(root_path=written)


def test_proxies_are_addresses_or_networks_or_unix():
    environ = {"HUB_TRUSTED_PROXIES": "127.0.0.1, ::1, 10.0.0.0/8, unix"}
    assert Settings.load(environ=environ).trusted_proxies == ("127.0.0.1", "::1", "10.0.0.0/8", "unix")
    for wrong in ("*", "localhost", "10.0.0.1/8", "1.2.3", "unix:/run/x"):
        with pytest.raises(ValidationError):
            Settings(trusted_proxies=(wrong,))


@pytest.mark.parametrize(
    ("forwarded", "secure"),
    [
        ([], False),
        (["https"], True),
        (["HTTPS , http"], True),
        (["http, https"], False),
        (["https", "http"], True),
        (["x"], False),
    ],
)
def test_a_trusted_proxy_says_whether_the_client_came_over_tls(forwarded: list[str], secure: bool):
    assert BEHIND.secure(PROXY, forwarded) is secure
    assert not BEHIND.secure(OTHER, forwarded)
    assert not Proxies().secure(PROXY, forwarded)


def test_a_trusted_proxy_says_under_which_name_it_shows_the_hub():
    assert BEHIND.hosts(PROXY, ["Live.example:8443, inner"]) == {"live.example:8443", "inner"}
    assert BEHIND.hosts(PROXY) == BEHIND.hosts(OTHER, ["live.example"]) == Proxies().hosts(PROXY, ["x"]) == frozenset()
