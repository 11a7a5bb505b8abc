"""Addresses of a Redis: what they mean, and which rule a wrong one breaks."""

from __future__ import annotations

import pytest

from hub.redis_url import RedisURL


def test_a_server_has_a_host_and_maybe_a_database_and_a_password():
    assert RedisURL.parse("redis://localhost") == RedisURL("server", hosts=(("localhost", 6379),))
    url = RedisURL.parse("rediss://me:p%40ss@[::1]:7000/3?ca=/etc/ca.pem")
    assert (url.kind, url.tls, url.hosts, url.database) == ("server", True, (("::1", 7000),), 3)
    assert (url.username, url.password, url.options) == ("me", "p@ss", {"ca": "/etc/ca.pem"})
    assert RedisURL.parse("redis://:p@h").username is None


def test_a_socket_has_a_path():
    url = RedisURL.parse("redis+unix:///run/redis%20x.sock?db=2")
    assert (url.path, url.database, url.hosts) == ("/run/redis x.sock", 2, ())


def test_sentinels_know_a_service_and_a_cluster_has_nodes():
    url = RedisURL.parse("redis+sentinel://u:p@a,b:1/main/2?sentinel_password=s")
    assert (url.kind, url.hosts, url.service, url.database) == ("sentinel", (("a", 26379), ("b", 1)), "main", 2)
    assert url.options == {"sentinel_password": "s"}
    cluster = RedisURL.parse("rediss+cluster://a:1,b")
    assert (cluster.kind, cluster.tls, cluster.hosts) == ("cluster", True, (("a", 1), ("b", 6379)))


@pytest.mark.parametrize(
    "text",
    [
        *("redis://h:1/2", "rediss://[::1]:6379", "redis+unix:///run/s", "redis+cluster://a:1,b:2"),
        *("redis+sentinel://a:1,b:2/main/3", "rediss+sentinel://a:1/main"),
    ],
)
def test_an_address_is_shown_as_it_may_be_written(text: str):
    assert str(RedisURL.parse(text)) == text


def test_what_is_secret_is_not_shown():
    url = RedisURL.parse("redis://me:secret@h/1?sentinel_password=secret")
    assert str(url) == "redis://h:6379/1"
    assert "secret" not in repr(url)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://h", "its scheme is one of redis, rediss"),
        ("redis://", "no host"),
        ("redis://h:0", "a port"),
        ("redis://h:99999", "a port"),
        ("redis://::1", "a host, or one that is none|no host"),
        ("redis://a,b", "several hosts"),
        ("redis://h/x", "a database that is no number"),
        ("redis://h/1/2", "more than a database"),
        ("redis://h?timeout=1", "the option 'timeout'"),
        ("redis+cluster://h/1", "a cluster has only the one"),
        ("redis+sentinel://h", "no service"),
        ("redis+unix://h/s", "no.* Unix socket|not a Unix socket"),
        ("redis+unix:///", "not a Unix socket"),
        (f"redis+unix:///{'x' * 101}", "at most 100 bytes"),
    ],
)
def test_a_wrong_address_says_which_rule_it_breaks(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        RedisURL.parse(text)
