"""What was revoked: the table that every home has in memory, for `revoked` is asked on the way of every request."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import inf, isfinite
from typing import NamedTuple

from hub.access.identity import Identity
from hub.errors import InvalidInput
from hub.state.state import Revocation

MOST = 100_000
BUCKET_BITS = 18
SLACK_SECONDS = 3600.0
"""A token may count somewhat longer than it says (leeway), and clocks differ: so much longer its revocation is kept."""

Rows = Iterable[tuple[bytes, float, float | None]]
Buckets = Iterable[tuple[int, float]]


class Change(NamedTuple):
    """What one revocation changes in the table; a home that lasts writes it down.

    Attributes:
        digest, at, until: what the table has of the revocation now.
        gone: digests that are no longer in the table.
        buckets: the hashes that changed for them.
    """

    digest: bytes
    at: float
    until: float | None
    gone: list[bytes]
    buckets: list[tuple[int, float]]


class Revocations:
    """All revocations, in bounded memory; none is ever forgotten before its time.

    Each is kept as a digest. Beyond *most*, the oldest tenth is folded into buckets by a short hash: a bucket says when
    the last of those was revoked, so that it revokes whatever has the same short hash and is as old. A wrong answer is
    always a refusal, and ends with a new token.

    Args:
        clock: seconds since 1970.
        most: how many are kept exactly.
    """

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._known: dict[bytes, tuple[float, float | None]] = {}  # in the order in which they were revoked
        self._buckets: array[float] | None = None  # by short hash, when the last was revoked; -inf: none was

    def __len__(self) -> int:
        """Return how many are kept exactly."""
        return len(self._known)

    def revoked(self, identity: Identity) -> bool:
        """Return whether *identity* has no rights any more."""
        if not self._known and self._buckets is None:  # the usual case
            return False
        user = _digest("user", identity.user)
        if not _is_after(identity.issued, self._revoked_at(user)):
            return True
        if identity.token is None:
            return False
        token = _digest("token", identity.token)
        return token in self._known or not _is_after(identity.issued, self._bucket_of(token))

    def _revoked_at(self, digest: bytes) -> float:
        known = self._known.get(digest)
        folded = self._bucket_of(digest)
        return folded if known is None else max(known[0], folded)

    def _bucket_of(self, digest: bytes) -> float:
        return -inf if self._buckets is None else self._buckets[_bucket(digest)]

    def add(self, revocation: Revocation) -> Change:
        """Add *revocation* and return what it changes.

        Raises:
            InvalidInput: a time in it is not a number.
        """
        if not isfinite(revocation.at) or not isfinite(revocation.until or 0):
            raise InvalidInput("at", "is not a time")
        return self.put(_digest(revocation.kind, revocation.id), revocation.at, revocation.until)

    def put(self, digest: bytes, at: float, until: float | None) -> Change:
        """Add a revocation of which only the digest is known; return what it changes."""
        if (known := self._known.pop(digest, None)) is not None:
            at = max(at, known[0])
            until = None if until is None or known[1] is None else max(until, known[1])
        self._known[digest] = (at, until)
        gone, buckets = self._make_room() if len(self._known) > self._most else ([], [])
        return Change(digest, at, until, gone, buckets)

    def _make_room(self) -> tuple[list[bytes], list[tuple[int, float]]]:
        """Forget those whose time has come; if that is less than a tenth, fold the oldest tenth."""
        gone = list(self._past())
        for digest in gone:
            del self._known[digest]
        changed: set[int] = set()
        tenth = max(1, self._most // 10)
        while len(self._known) > self._most - tenth:
            for digest in list(islice(self._known, tenth)):
                at, _ = self._known.pop(digest)
                self._fold(_bucket(digest), at)
                changed.add(_bucket(digest))
                gone.append(digest)
        return gone, [(bucket, self._buckets[bucket]) for bucket in changed] if self._buckets is not None else []

    def _past(self) -> Iterator[bytes]:
        now = self._clock() - SLACK_SECONDS
        return (digest for digest, (_, until) in self._known.items() if until is not None and until <= now)

    def _fold(self, bucket: int, at: float) -> None:
        if self._buckets is None:
            self._buckets = array("d", [-inf]) * (1 << BUCKET_BITS)
        self._buckets[bucket] = max(self._buckets[bucket], at)

    def __contains__(self, digest: bytes) -> bool:
        """Return whether the revocation with this *digest* is kept exactly."""
        return digest in self._known

    def learn(self, known: Revocations) -> list[Change]:
        """Add what *known* has and this table has not; return what is to be written down for that."""
        past = set(known._past())
        missing = [each for each in known._known.items() if each[0] not in self._known and each[0] not in past]
        if known._buckets is not None:
            for bucket, at in enumerate(known._buckets):
                if at > -inf:
                    self._fold(bucket, at)
        return [self.put(digest, *times) for digest, times in missing]

    def restore(self, rows: Rows, buckets: Buckets) -> None:
        """Add what a home has written down, in the order in which it was revoked."""
        self._known.update((digest, (at, until)) for digest, at, until in rows)
        for bucket, at in buckets:
            self._fold(bucket, at)


def _is_after(issued: float | None, at: float) -> bool:
    """Return whether what was issued then can't have been revoked at *at*; None (or NaN) is never known to be after."""
    return at == -inf or (issued is not None and issued > at)


def _digest(kind: str, id: str) -> bytes:
    return hashlib.blake2b(f"{kind}\0{id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _bucket(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "big") >> (32 - BUCKET_BITS)
