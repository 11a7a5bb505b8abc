"""The address of a log: `memory://`, `sqlite:///` and a path, or that of a Redis. Pure: nothing is opened here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hub.redis_url import SCHEMES, RedisURL

MEMORY = "memory"
SQLITE = "sqlite"
REDIS = "redis"
PRIVATE = "redis+private"


class LogURL(NamedTuple):
    """Where a log is kept; made by `parse`.

    Attributes:
        scheme: `memory`, `sqlite`, `redis`, whatever way there is to that, or `redis+private`, which is to be started.
        rest: what follows `scheme://`; of a Redis, the whole address.
        name: in Redis, of a second log of the same hub.
    """

    scheme: str
    rest: str = ""
    name: str = ""

    def __repr__(self) -> str:
        return f"LogURL({str(self)!r})"

    def __str__(self) -> str:
        """The address without what is secret."""
        return str(self.redis) if self.scheme == REDIS else f"{self.scheme}://{self.rest}"

    @classmethod
    def parse(cls, text: str) -> LogURL:
        """Return the address that *text* is.

        A relative path has three slashes before it, an absolute one four.

        Raises:
            ValueError: the rule that *text* breaks, for a sentence that begins with the name of the field.
        """
        scheme, found, rest = text.partition("://")
        if scheme == MEMORY and found and not rest:
            return cls(MEMORY)
        if scheme == SQLITE and rest.startswith("/") and rest != "/" and "\0" not in rest:
            return cls(SQLITE, rest)
        if scheme == PRIVATE and rest.startswith("/") and rest != "/" and "\0" not in rest:
            return cls(PRIVATE, rest)
        if found and scheme in SCHEMES:
            RedisURL.parse(text)
            return cls(REDIS, text)
        path = text.rpartition("://")[2].lstrip("/").replace("\0", "") or "path/to/file"
        raise ValueError(f"is not the address of a log; write memory://, or three slashes and a path: sqlite:///{path}")

    @property
    def path(self) -> Path:
        """The file of a `sqlite` log, or the folder of a `redis+private` one."""
        return Path(self.rest[1:])

    @property
    def redis(self) -> RedisURL:
        """Where the Redis of a `redis` log is."""
        return RedisURL.parse(self.rest)

    def beside(self, name: str) -> LogURL:
        """Return the address of a second log of the same hub: in a file, `hub.db` becomes `hub.{name}.db`."""
        if self.scheme == REDIS:
            return self._replace(name=name)
        if self.scheme != SQLITE:
            return self
        folder, slash, file = self.rest.rpartition("/")
        stem, dot, suffix = file.rpartition(".")
        return self._replace(rest=folder + slash + (f"{stem}.{name}.{suffix}" if dot else f"{file}.{name}"))
