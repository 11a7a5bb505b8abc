"""What verified tokens say, so that each is verified once; bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from sys import getsizeof
from typing import NamedTuple

from hub.access.identity import NOTHING, Identity

CACHE_BYTES = 8 * 1024 * 1024
_ENTRY_BYTES = 400  # the digest, the place in the dictionary and its order, the entry itself
_IDENTITY_BYTES = getsizeof(Identity(user="1")) + 2 * getsizeof(0.5)  # with two times; the rest is counted


class TokenCache:
    """The identities of verified tokens, by the SHA-256 of the token: the tokens themselves are not kept.

    Beyond *most* bytes, everything counted, those that were not used for longest are forgotten.

    Attributes:
        size: the bytes that are used.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes) -> Identity | None:
        """Return the identity for *digest*; None if it is not here."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        self._entries.move_to_end(digest)
        return entry.identity

    def put(self, digest: bytes, identity: Identity) -> None:
        """Keep *identity* for *digest*, which is not here yet."""
        entry = _Entry(identity, _ENTRY_BYTES + _size_of_identity(identity))
        self._entries[digest] = entry
        self.size += entry.size
        while self.size > self._most:
            _, oldest = self._entries.popitem(last=False)
            self.size -= oldest.size

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self.size = 0


class _Entry(NamedTuple):
    identity: Identity
    size: int


def _size_of_identity(identity: Identity) -> int:
    """Return the bytes of *identity* and of all that it holds."""
    texts = (identity.user, identity.session, identity.token, *identity.subscribe, *identity.publish)
    size = _IDENTITY_BYTES + getsizeof(identity.subscribe) + getsizeof(identity.publish) + sum(map(getsizeof, texts))
    return size if identity.info is NOTHING else size + _size_of(identity.info)


def _size_of(value: object) -> int:
    """Return the bytes of *value* and of all that it holds."""
    size = getsizeof(value)
    if isinstance(value, Mapping):
        return size + getsizeof({**value}) + sum(_size_of(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return size + sum(map(_size_of, value))
    return size
