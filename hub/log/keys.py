"""The idempotency keys that were used lately."""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable

from hub.log.receipt import Receipt
from hub.notification import Position

KEY_AGE = 300.0
KEY_COUNT = 100_000
KEY_BYTES = 24 * 1024 * 1024
"""With a key of any length and one topic of ordinary length, 100,000 fit."""

_FACTS = struct.Struct("<16sdq")
# What a key costs beside its topics: its digest twice, two objects of bytes, their places in a dict and in a deque.
_COST = 49 + 33 + _FACTS.size + 85


class Keys:
    """What was published under the keys used within five minutes: the newest 100,000 at most, in 24 MiB at most.

    A key is kept as a digest, and what it stands for as bytes, so that what is counted is what is used, and a long key
    costs what a short one does.

    Args:
        clock: seconds since 1970.

    Attributes:
        size: bytes that are used, about.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: dict[bytes, bytes] = {}
        # In the order in which they go; a dict finds its oldest only behind the places of all that has gone from it.
        self._order: deque[bytes] = deque()
        self._unconfirmed: dict[bytes, Receipt] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._used)

    def get(self, key: str, epoch: str) -> Receipt | None:
        """Return the receipt of the first publish with *key*, if it still counts; *epoch* is that of the log."""
        digest = digest_of(key)
        used = self._used.get(digest)
        if used is None:
            return None
        _, until, offset = _FACTS.unpack_from(used)
        if until <= self._clock():
            return None
        waiting = self._unconfirmed.get(digest)
        if waiting is not None:
            return waiting
        return Receipt(tuple(used[_FACTS.size :].decode().split("\n")), Position(epoch, offset))

    def put(
        self,
        key: str,
        topics: tuple[str, ...],
        offset: int,
        *,
        receipt: Receipt | None = None,
        expires: float | None = None,
    ) -> float:
        """Remember what was published with a key and return until when, in seconds since 1970.

        Args:
            key: the text.
            topics: where it is addressed.
            offset: where it stands in the log, or will.
            receipt: of a publish that is not confirmed yet: `confirm` or `forget` follows.
            expires: None: in five minutes.
        """
        now = self._clock()
        until = now + KEY_AGE if expires is None else expires
        digest = digest_of(key)
        used = _FACTS.pack(digest, until, offset) + "\n".join(topics).encode()
        self._used[digest] = used
        self._order.append(used)
        self.size += _cost(used)
        if receipt is not None:
            self._unconfirmed[digest] = receipt
        else:
            self._unconfirmed.pop(digest, None)
        while self._order and (len(self._used) > KEY_COUNT or self.size > KEY_BYTES or self._oldest_until() <= now):
            self._drop_oldest()
        return until

    def _oldest_until(self) -> float:
        return float(_FACTS.unpack_from(self._order[0])[1])

    def _drop_oldest(self) -> None:
        used = self._order.popleft()
        self.size -= _cost(used)
        digest = used[:16]
        if self._used.get(digest) is used:  # it was neither forgotten nor used again
            del self._used[digest]
            self._unconfirmed.pop(digest, None)

    def confirm(self, key: str, receipt: Receipt) -> None:
        """Forget *receipt*, which the log has confirmed: what *key* stands for is known without it."""
        digest = digest_of(key)
        if self._unconfirmed.get(digest) is receipt:
            del self._unconfirmed[digest]

    def forget(self, key: str, receipt: Receipt) -> None:
        """Forget *key* if it stands for *receipt*, which failed: a retry is welcome."""
        digest = digest_of(key)
        if self._unconfirmed.get(digest) is receipt:
            del self._unconfirmed[digest], self._used[digest]


def digest_of(key: str) -> bytes:
    """Return what is kept of *key*."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _cost(used: bytes) -> int:
    return _COST + len(used) - _FACTS.size
