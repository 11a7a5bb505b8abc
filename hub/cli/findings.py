"""What is well with a hub, and what is not, by what was seen of it from outside and what it says of itself. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hub.client.probe import NOTHING, Reply, Streamed, Tls

SLOW_SECONDS = 2.0
"""A first byte that takes longer, and a clock that is further away, is worth a word."""

LEEWAY = 10.0  # that of tokens, HUB_JWT_LEEWAY
DAY = 86_400.0
FEW_DAYS = 14
FEW_FILES = 4_096
SPARE_FILES = 128  # what the hub itself leaves free
SMALL_BACKLOG = 1_024
NEARLY = 0.8
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    SKIP = "skip"  # it can't be told
    WARN = "warn"  # it works, but not as well as it could
    FAIL = "fail"  # users are cut off, or unprotected


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        level: how bad it is.
        name: which check found it, a key of `CHECKS`.
        text: what is so.
        todo: what to do; empty: nothing.
    """

    level: Level
    name: str
    text: str
    todo: str = ""


class Sight(NamedTuple):
    """What was seen of a hub.

    Attributes:
        url: where it was asked.
        ready: the answer of `/readyz`.
        tls: None: without.
        stream: a stream, until the first heartbeat; None: it was not asked for.
        waited: the seconds for which the stream was looked at.
        large: the answer to a body of nearly a MiB; None: there was none.
        stats: the answer of the statistics to somebody unknown.
        described: the answer of `/openapi.json`.
        facts: what the hub says of itself; None: nothing.
        why: why it says nothing.
        through: the facts were asked at the same address, so that they tell of the proxies before it.
        clock: the local time when the facts, or else `ready`, were asked, in seconds since 1970.
        date: the time that it said then; None: none.
    """

    url: str
    ready: Reply
    tls: Tls | None
    stream: Streamed
    waited: float
    large: Reply | None
    stats: Reply
    described: Reply
    facts: Mapping[str, Any] | None
    why: str
    through: bool
    clock: float
    date: float | None

    @property
    def local(self) -> bool:
        """Whether it was asked on this very machine."""
        return urlsplit(self.url).hostname in _LOOPBACK

    @property
    def path(self) -> str:
        """The path under which it was asked."""
        return urlsplit(self.url).path.rstrip("/")


def judge(sight: Sight) -> list[Finding]:
    """Return what was found, in the order of `CHECKS`."""
    found: list[Finding] = []
    for name, check in CHECKS.items():
        found += [Finding(level, name, text, todo) for level, text, todo in check(sight)]
    return found


Found = Iterator[tuple[Level, str, str]]
OK, SKIP, WARN, FAIL = Level.OK, Level.SKIP, Level.WARN, Level.FAIL


def _ready(sight: Sight) -> Found:
    if sight.ready.status == 200:
        yield OK, "it takes new work", ""
        return
    said = sight.ready.json()
    detail = said.get("detail") if isinstance(said, Mapping) else None
    yield FAIL, f"/readyz answers {sight.ready.status}: {detail or 'no reason'}", "look at its log"


def _tls(sight: Sight) -> Found:
    tls = sight.tls
    if tls is None and sight.local:
        yield SKIP, "it was asked on this machine, without TLS", "ask the address that browsers use"
    elif tls is None:
        yield FAIL, "everybody on the way can read it", "put a proxy with TLS before it, or set HUB_TLS_CERT"
    elif tls.expires is not None and tls.expires - sight.clock < FEW_DAYS * DAY:
        days = max(0, int((tls.expires - sight.clock) // DAY))
        yield WARN, f"the certificate expires in {days} days", "renew it"
    else:
        yield OK, tls.version, ""


def _http2(sight: Sight) -> Found:
    todo = "let the proxy speak HTTP/2: docs/howto/run-behind-a-proxy.md"
    if sight.tls is None and sight.local:
        yield SKIP, "it was asked on this machine", "ask the address that browsers use"
    elif sight.tls is None or sight.tls.protocol != "h2":
        yield WARN, "browsers open at most six streams with HTTP/1.1, for all tabs together", todo
    else:
        yield OK, "all streams of a browser share one connection", ""


def _refused(stream: Streamed) -> str:
    """Return why *stream* is none; empty: it is one."""
    if stream.reply.status not in {200, NOTHING}:
        return f"it was refused with {stream.reply.status}"
    if b"event: hub.close" in stream.text:
        return "the hub ended it at once"
    return ""


def _first_byte(sight: Sight) -> Found:
    stream, todo = sight.stream, "turn response buffering off: docs/howto/run-behind-a-proxy.md"
    if why := _refused(stream):
        yield SKIP, why, "name a topic that the token may read: --topic"
    elif b"hub.open" not in stream.text:
        yield FAIL, f"nothing of a stream came within {sight.waited:.0f} s: something holds it back", todo
    elif (after := stream.pieces[0].seconds) > SLOW_SECONDS:
        yield FAIL, f"the first byte of a stream took {after:.1f} s: something holds it back", todo
    else:
        yield OK, f"a stream begins after {after * 1000:.0f} ms", ""


def _heartbeat(sight: Sight) -> Found:
    stream = sight.stream
    if _refused(stream) or b"hub.open" not in stream.text:
        yield SKIP, "there was no stream", ""
        return
    after = next((each.seconds for each in stream.pieces if _beats(each.data)), None)
    if after is not None:
        yield OK, f"one came after {after:.1f} s", ""
    elif stream.ended:
        text = f"the stream was cut after {stream.reply.seconds:.0f} s"
        yield FAIL, text, "raise the idle timeouts on the way, or lower HUB_HEARTBEAT"
    elif sight.facts is not None and sight.facts["timeouts"]["heartbeat"] < sight.waited - SLOW_SECONDS:
        yield FAIL, f"none came within {sight.waited:.0f} s: something holds small pieces back", "turn buffering off"
    else:
        yield SKIP, f"none was due within {sight.waited:.0f} s", "wait longer: --seconds"


def _beats(data: bytes) -> bool:
    return any(line.startswith(b":") for line in data.splitlines())


def _compression(sight: Sight) -> Found:
    headers = sight.stream.reply.headers
    if sight.stream.reply.status != 200:
        yield SKIP, "there was no stream", ""
    elif encoding := headers.get("content-encoding"):
        yield WARN, f"a proxy compresses streams ({encoding})", "leave text/event-stream out of its compression"
    elif "no-transform" not in headers.get("cache-control", ""):
        yield WARN, "a proxy has changed Cache-Control: those behind it may compress and cache", "have it passed on"
    else:
        yield OK, "streams are not compressed", ""


def _body(sight: Sight) -> Found:
    large, todo = sight.large, "raise the limit of the proxy to 1 MiB (client_max_body_size)"
    if large is None:
        yield WARN, "a body of 1 MB does not get through", todo
    elif "problem+json" in large.headers.get("content-type", ""):
        yield OK, "a body of 1 MB reaches the hub", ""
    else:
        text = f"a body of 1 MB is refused with {large.status} before the hub sees it"
        yield WARN, text, todo if large.status == 413 else "look at the log of the proxy"


def _clock(sight: Sight) -> Found:
    if sight.date is None:
        yield SKIP, "it does not say its time", ""
        return
    apart = sight.date - sight.clock
    text = f"{abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this machine"
    if abs(apart) <= SLOW_SECONDS:
        yield OK, text, ""
    else:
        yield FAIL if abs(apart) > LEEWAY else WARN, text, "set the clocks by NTP: tokens expire by them"


def _rights(sight: Sight) -> Found:
    if sight.facts is None:
        yield SKIP, sight.why, ""
    elif not sight.facts["access"]["known"]:
        todo = "configure keys for tokens: docs/howto/authorize.md"
        yield WARN if sight.local else FAIL, "nobody is asked who they are: whoever reaches it may do everything", todo
    else:
        yield OK, "it asks who reads and publishes", ""


def _administration(sight: Sight) -> Found:
    status = sight.stats.status
    if status == 200:
        todo = "configure keys for tokens, or HUB_ADMIN_PORT"
        yield WARN if sight.local else FAIL, "everybody may administer it here", todo
    elif status in {401, 403, 404}:
        yield OK, "it is not there" if status == 404 else "it is for administrators", ""
    else:
        yield SKIP, f"the statistics answer {status}", ""


def _limits(sight: Sight) -> Found:
    if sight.facts is None:
        yield SKIP, sight.why, ""
        return
    limits, streams = sight.facts["limits"], sight.facts["streams"]
    files, most = limits["files"], limits["streams"]
    todo = "raise the limit of open files (LimitNOFILE, ulimits, --ulimit)"
    room = min((each for each in (files and files - SPARE_FILES, most) if each), default=None)
    if room is None:
        yield OK, "as many streams as there is memory for", ""
    elif files and most and most > files - SPARE_FILES:
        yield FAIL, f"{most:,} streams may be open, but only {files:,} files", todo
    elif streams >= NEARLY * room:
        yield WARN, f"{streams:,} of at most {room:,} streams are open", f"{todo}, or add a hub"
    elif files and files < FEW_FILES:
        yield WARN, f"only {files:,} files may be open, and each stream is one", todo
    else:
        yield OK, f"{streams:,} of at most {room:,} streams are open", ""


def _backlog(sight: Sight) -> Found:
    if sight.facts is None or (backlog := sight.facts["limits"]["backlog"]) is None:
        yield SKIP, sight.why or "the kernel does not tell", ""
    elif backlog < SMALL_BACKLOG:
        yield WARN, f"only {backlog:,} connections may wait: a burst is refused", "raise net.core.somaxconn"
    else:
        yield OK, f"{backlog:,} connections may wait", ""


def _log(sight: Sight) -> Found:
    if sight.facts is None:
        yield SKIP, sight.why, ""
        return
    log = sight.facts["log"]
    if not log["answers"]:
        yield FAIL, "it does not answer", "look at the log lines of the hub"
    elif log["kind"] == "memory":
        yield WARN, "in memory: a restart loses the history", "HUB_LOG=sqlite:///… or redis://…"
    elif log["network"]:
        text = f"its file is on {log['file_system']}, where locks and fsync can't be relied on"
        yield FAIL, text, "put it on a local disk, or use Redis"
    else:
        yield OK, log["kind"] + (f" on {log['file_system']}" if log["file_system"] else ""), ""


def _revocations(sight: Sight) -> Found:
    if sight.facts is None:
        yield SKIP, sight.why, ""
    elif (lasting := sight.facts["access"]["revocations"]) is None:
        yield SKIP, "nobody is known, so nothing can be revoked", ""
    elif not lasting:
        yield WARN, "a restart forgets what was revoked", "set HUB_STATE to a file"
    else:
        yield OK, "what is revoked stays so", ""


def _root_path(sight: Sight) -> Found:
    seen = _server(sight.described.json())
    if sight.facts is not None and sight.through:
        seen = sight.facts["request"]["prefix"]
    elif seen is None:
        yield SKIP, sight.why, ""
        return
    if seen != sight.path:
        todo = f"HUB_ROOT_PATH={sight.path or '/'}, or X-Forwarded-Prefix from a trusted proxy"
        yield FAIL, f"links lead to {seen or '/'}, but it is at {sight.path or '/'}", todo
    else:
        yield OK, f"links lead to {seen or '/'}", ""


def _server(described: Any) -> str | None:
    """Return the address in what *described* the API, without the slash at its end; None: there is none."""
    servers = described.get("servers") if isinstance(described, Mapping) else None
    first = servers[0] if isinstance(servers, list) and servers else None
    return str(first["url"]).rstrip("/") if isinstance(first, Mapping) and "url" in first else None


def _proxy(sight: Sight) -> Found:
    if sight.facts is None or not sight.through:
        yield SKIP, sight.why or "the facts came from another address", ""
        return
    way, https = sight.facts["request"], sight.tls is not None
    peer = way["peer"] or "unix"
    if way["forwarded"] and not way["trusted"]:
        text = f"what {peer} says of its clients is ignored: all of them count as one address"
        yield FAIL, text, f"HUB_TRUSTED_PROXIES={peer}"
    elif https and not way["secure"]:
        text = "it does not know that clients come over TLS: its cookies are not Secure"
        yield FAIL, text, f"send X-Forwarded-Proto, and trust the proxy: HUB_TRUSTED_PROXIES={peer}"
    elif way["trusted"] and not way["forwarded"]:
        yield WARN, f"{peer} is trusted, but does not say who its clients are", "have it send X-Forwarded-For"
    else:
        yield OK, f"this client is {way['client'] or 'on a Unix socket'}", ""


CHECKS: Mapping[str, Callable[[Sight], Found]] = {
    "ready": _ready,
    "tls": _tls,
    "http2": _http2,
    "first-byte": _first_byte,
    "heartbeat": _heartbeat,
    "compression": _compression,
    "body": _body,
    "clock": _clock,
    "rights": _rights,
    "administration": _administration,
    "limits": _limits,
    "backlog": _backlog,
    "log": _log,
    "revocations": _revocations,
    "root-path": _root_path,
    "proxy": _proxy,
}
"""The checks, by the names under which docs/howto/run-in-production.md explains them."""
