"""What is kept of verified tokens."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
from typing import Any

import pytest

from hub.access.identity import Identity
from hub.access.token_cache import TokenCache
from hub.access.tokens import Tokens
from tests.access.jwt import NOW, claims, secret_keys, token


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    one = TokenCache(10**6)
    one.put(digest(0), Identity(user="0"))
    cache = TokenCache(one.size * 3)
    for number in range(3):
        cache.put(digest(number), Identity(user=str(number)))
    assert cache.get(digest(0)) == Identity(user="0")
    cache.put(digest(3), Identity(user="3"))
    assert cache.get(digest(1)) is None
    assert [cache.get(digest(number)) for number in (0, 2, 3)] == [Identity(user=str(n)) for n in (0, 2, 3)]
    assert cache.size == one.size * 3


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = TokenCache(100)
    cache.put(digest(0), Identity(user="0"))
    assert (len(cache), cache.size) == (0, 0)


def test_a_cleared_cache_is_empty() -> None:
    cache = TokenCache(10**6)
    cache.put(digest(0), Identity(user="0"))
    cache.clear()
    assert (len(cache), cache.size, cache.get(digest(0))) == (0, 0, None)


SHAPES: dict[str, dict[str, Any]] = {
    "small": {},
    "many patterns": {"subscribe": [f"topic/{n}/**" for n in range(128)]},
    "info": {"info": {"a": [[] for _ in range(300)]}},
    "many members": {"info": {f"m{n}": {} for n in range(90)}},
    "text": {"info": {"a": "ä€" * 150}},
    "all": {"subscribe": ["a/**"], "publish": ["b"], "info": {"name": "Ada", "x": [1.5, None, True]}},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_is_counted_is_what_is_used(shape: dict[str, Any]) -> None:
    texts = [token(claims(sub=f"user {n}", jti=f"token {n}", iat=NOW, hub=shape)) for n in range(300)]
    cached = Tokens(secret_keys(), clock=lambda: NOW)
    cached.verify(token())
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for text in texts:
            cached.verify(text)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    counted = cached.cached_bytes
    assert used <= counted * 1.1
    assert counted <= used * 2, "it would forget too early"


def test_the_bound_holds_whatever_comes() -> None:
    cached = Tokens(secret_keys(), clock=lambda: NOW, cache_bytes=20_000)
    for number in range(200):
        cached.verify(token(claims(sub=str(number))))
        assert cached.cached_bytes <= 20_000
    assert cached.cached_bytes > 15_000
