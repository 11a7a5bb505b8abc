import pytest
from pydantic import ValidationError

from hub.origin import origin_of
from hub.settings import Settings


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "https://app.example.com:8443",
        "http://localhost:5173",
        "http://127.0.0.1",
        "http://[::1]:3000",
        "http://a:443",
        "https://a:80",
        "https://xn--fiq228c.example",
        "http://my_host.lan",
        "https://a.example.",
    ],
)
def test_an_origin_as_browsers_spell_it_is_taken(origin: str):
    assert origin_of(origin) == origin
    assert Settings(cors_origins=(origin,)).cors_origins == (origin,)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://App.example.com", "https://app.example.com"),
        ("HTTPS://a.com", "https://a.com"),
        ("https://a.com:443", "https://a.com"),
        ("http://a.com:80", "http://a.com"),
        ("http://a.com:080", "http://a.com"),
        ("http://a.com:08080", "http://a.com:8080"),
        ("https://a.com/", "https://a.com"),
        ("https://a.com:", "https://a.com"),
        ("https://中文.example", "https://xn--fiq228c.example"),
        ("http://[0:0::1]:80", "http://[::1]"),
        ("http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]"),
    ],
)
def test_another_spelling_is_refused_with_the_right_one(written: str, sent: str):
    assert origin_of(sent) == sent
    with pytest.raises(ValidationError) as caught:
        Settings(cors_origins=(written,))
    assert f"they send {sent}" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("*", "null", "", "example.com", "ftp://a", "https://", "https://a/b", "https://a?b", "https://a#b"),
        *("https://u@a", "https://a b", "https://a:99999", "https://a:x", "https://a..b", "https://*.a", "https://a,b"),
        *("http://[::g]", "http://999.1.1.1", "http://127.1", "https://a\n", "https://%61", "https://stra\u00dfe.de"),
    ],
)
def test_what_is_no_origin_is_refused(text: str):
    assert origin_of(text) == ""
    with pytest.raises(ValidationError):
        Settings(cors_origins=(text,))
