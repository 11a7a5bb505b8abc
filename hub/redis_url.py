"""The address of a Redis. Pure: nothing is opened here, and no client library is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

Kind = Literal["server", "sentinel", "cluster"]

SCHEMES: Mapping[str, tuple[Kind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "redis+unix": ("server", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
"""By scheme, what is at the address, and whether it is spoken to over TLS."""

SERVER_PORT, SENTINEL_PORT = 6379, 26379
OPTIONS = frozenset({"ca", "cert", "key", "sentinel_username", "sentinel_password"})
MAX_SOCKET_PATH = 100
_MAX_PORT = 65535


class RedisURL(NamedTuple):
    """Where a Redis is; made by `parse`.

    Attributes:
        kind: one server; Sentinels, which know the server; or nodes of a cluster.
        tls: whether it is spoken to over TLS.
        hosts: names and ports: of the server, or of those that are asked for it.
        path: the Unix socket of a server; empty: it is reached by its host.
        service: the name under which Sentinels know the server.
        database: the number of the database.
        username, password: for the server.
        options: `ca`, `cert` and `key` are PEM files for TLS; `sentinel_username` and `sentinel_password`.
    """

    kind: Kind
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = None
    options: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"RedisURL({str(self)!r})"

    def __str__(self) -> str:
        """The address without what is secret."""
        scheme = "rediss" if self.tls else "redis"
        if self.path:
            return f"redis+unix://{self.path}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        rest = f"/{self.service}" if self.service else ""
        rest += f"/{self.database}" if self.database else ""
        return f"{scheme}{'' if self.kind == 'server' else '+' + self.kind}://{hosts}{rest}"

    @classmethod
    def parse(cls, text: str) -> RedisURL:
        """Return the address that *text* is.

        Raises:
            ValueError: the rule that *text* breaks, for a sentence that begins with the name of the field.
        """
        scheme, _, _ = text.partition("://")
        if scheme not in SCHEMES:
            raise ValueError(f"is not the address of a Redis; its scheme is one of {', '.join(SCHEMES)}")
        kind, tls = SCHEMES[scheme]
        try:
            parts = urlsplit(text)
        except ValueError:
            raise ValueError("is not the address of a Redis: its host is none") from None
        user, at, hosts = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        database = options.pop("db", "")
        if unknown := sorted(options.keys() - OPTIONS):
            raise ValueError(f"has the option {unknown[0]!r}; there are db, {', '.join(sorted(OPTIONS))}")
        username = unquote(name) or None if at else None
        secret = unquote(password) or None if at else None
        if scheme == "redis+unix":
            path = unquote(parts.path)
            if hosts or not path.strip("/") or len(path.encode()) > MAX_SOCKET_PATH or "\0" in path:
                raise ValueError(f"is not a Unix socket: redis+unix:///path, of at most {MAX_SOCKET_PATH} bytes")
            return cls(kind, False, (), path, "", _database(database), username, secret, options)
        segments = [unquote(each) for each in parts.path.split("/")[1:] if each]
        service = ""
        if kind == "sentinel":
            if not segments:
                raise ValueError("has no service: redis+sentinel://host:26379,host:26379/service/database")
            service = segments.pop(0)
        if segments and not database:
            database = segments.pop(0)
        if segments:
            raise ValueError("has more than a database behind its host")
        if kind == "cluster" and database not in {"", "0"}:
            raise ValueError("has a database: a cluster has only the one with the number 0")
        port = SENTINEL_PORT if kind == "sentinel" else SERVER_PORT
        found = tuple(_host(each, port) for each in hosts.split(","))
        if kind == "server" and len(found) > 1:
            raise ValueError("has several hosts: only redis+sentinel:// and redis+cluster:// do")
        return cls(kind, tls, found, "", service, _database(database), username, secret, options)


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError("has a database that is no number")
    return int(text or 0)


def _host(text: str, port: int) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon or number.endswith("]"):
        host, number = text, ""
    if number and not (number.isascii() and number.isdigit() and 0 < int(number) <= _MAX_PORT):
        raise ValueError("has a port that is none")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (bare == host and ":" in host):
        raise ValueError("has no host, or one that is none")
    return unquote(bare), int(number or port)
