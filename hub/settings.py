"""The settings, in one table; their sources are command line flags, environment variables `HUB_*` and a TOML file.

A flag has precedence over the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

import enum
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from hub.access.hosts import name_of
from hub.access.key_source import check_keys_url, check_secret
from hub.errors import InvalidSettings
from hub.log_url import LogURL
from hub.names import fault, nearest
from hub.origin import origin_of
from hub.proxies import UNIX, encoded_prefix, network_of
from hub.topics import MAX_SEGMENTS

PREFIX = "HUB_"
OTHER_VARIABLES = ("CONFIG", "URL", "TOKEN")
"""Variables that are no settings: the file of the settings; the hub that a command talks to, and the token for it."""

_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://.*", re.IGNORECASE)
# Variables that Kubernetes sets in every pod for services named `hub` or `hub-…`. It also sets HUB_PORT or HUB_…_PORT
# to an address.
_OF_KUBERNETES = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SCHEME = re.compile(r"[a-z][a-z0-9+]*:(/|$)")
_KEYS = ("jwt_secret", "jwt_keys", "jwks_url")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")


def is_loopback(host: str) -> bool:
    """Return whether whoever listens on *host* can be reached from this machine only."""
    return _LOOPBACK.fullmatch(host) is not None


class SlowPolicy(enum.StrEnum):
    """The policy for a connection whose reader is too slow."""

    DISCONNECT = "disconnect"  # close it: the client resumes from its id and misses nothing
    DROP_OLDEST = "drop_oldest"  # keep it, and drop the oldest waiting frames
    CONFLATE = "conflate"  # keep it, with only the newest waiting frame of each set of topics


class PerUser(enum.StrEnum):
    """What happens when a user who holds as many streams as allowed opens another one."""

    NEWEST = "newest"  # that one is refused, and its client told when to come back
    OLDEST = "oldest"  # the oldest one ends, and its client is told to stay away


def _split(value: object) -> object:
    """Return the list in `a, b`, which is how an environment variable writes it; other values unchanged.

    Raises:
        ValueError: it is written as JSON.
    """
    if not isinstance(value, str):
        return value
    if _is_json(value):
        raise ValueError("is written as JSON: write what is in it separated by commas, without brackets and quotes")
    return [part.strip() for part in value.split(",") if part.strip()]


def _is_json(text: str) -> bool:
    """Return whether *text* is a JSON list or object, which `[::1]` is not."""
    try:
        return isinstance(json.loads(text), list | dict)
    except (ValueError, RecursionError):
        return False


def _none(value: object) -> object:
    """Return None for an empty string: an empty variable means "unset"."""
    return None if value == "" else value


def _port(value: object) -> object:
    """Return *value*; raise ValueError if it is an address that Kubernetes has set, not a port."""
    if isinstance(value, str) and _ADDRESS.fullmatch(value.strip()):
        raise ValueError(
            "is an address, not a port: Kubernetes sets it so in every pod beside a service that is named hub (for "
            "HUB_ADMIN_PORT: hub-admin); set it to a number in the pod's own environment, give the flag, or say "
            "enableServiceLinks: false"
        )
    return _none(value)


def _lower(value: object) -> object:
    """Return a string in lower case: `DEBUG`, as the standard library writes it, means `debug`."""
    return value.lower() if isinstance(value, str) else value


def _pairs(value: object) -> object:
    """Return the table in `a/**=1, b=20`, which is how an environment variable writes it."""
    parts = _split(value)
    if not isinstance(parts, list):
        return parts
    pairs = [str(part).rpartition("=") for part in parts]
    for name, _, rest in pairs:
        if not name:
            raise ValueError(f"{rest!r} has no number; write {rest}=1")
    return {name.strip(): count.strip() for name, _, count in pairs}


_List = Annotated[tuple[str, ...], BeforeValidator(_split)]
_Count = Annotated[int, Field(ge=1, le=10**12)]
_Counts = Annotated[dict[str, _Count], BeforeValidator(_pairs)]
_Patterns = TypeVar("_Patterns", tuple[str, ...], dict[str, int])


class Settings(BaseModel):
    """The settings of one hub. `Settings(…)` uses its arguments only; `Settings.load` reads all the sources."""

    # Some inputs are secrets: pydantic's own errors would show them. `load` shows the others.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # These must come before `host`, whose validator reads them.
    insecure: bool = Field(default=False, description="Listen beyond loopback although nobody is asked who they are.")
    jwt_secret: Annotated[SecretStr | None, BeforeValidator(_none)] = Field(
        default=None, repr=False, description="Secret for tokens that are signed with HS256, of 32 bytes or more."
    )
    jwt_keys: Annotated[Path | None, BeforeValidator(_none)] = Field(
        default=None, description="File with the keys for tokens, as PEM or as a JWK set."
    )
    jwks_url: Annotated[str | None, BeforeValidator(_none)] = Field(
        default=None, description="Address of the JWK set with the keys for tokens, with https://."
    )
    host: str = Field(default="127.0.0.1", description="Address that `hub serve` listens on.")
    port: Annotated[int, BeforeValidator(_port)] = Field(
        default=8080, ge=0, le=65535, description="Port that `hub serve` listens on; 0 picks a free one."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that serve the hub together (`hub serve`); more than 1 need Redis.",
    )
    admin_port: Annotated[int | None, BeforeValidator(_port)] = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for administration, away from the users (`hub serve`); 0 picks a free one; unset: there is "
        "none, and the first port is for both.",
    )
    admin_host: str = Field(default="127.0.0.1", description="Address that administration listens on.")
    tls_cert: Annotated[Path | None, BeforeValidator(_none)] = Field(
        default=None, description="PEM file with the certificate chain; `hub serve` speaks TLS with it."
    )
    tls_key: Annotated[Path | None, BeforeValidator(_none)] = Field(
        default=None, description="PEM file with the key, unless `tls_cert` holds it too."
    )
    log: str = Field(
        default="memory://",
        description="Where the log is kept: `memory://`, `sqlite:///` and a path, or `redis://host:port/database`.",
    )
    redis_prefix: str = Field(
        default="hub",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Hash tag of the keys in Redis; hubs that share one Redis have different ones.",
    )
    redis_wait: int = Field(
        default=0, ge=0, le=100, description="Replicas that must have a notification before it is confirmed."
    )
    redis_fence: Literal["on", "off"] = Field(
        default="on",
        description="Whether each call asks Redis which server it is, so that lost writes are recognized.",
    )
    listeners: _List = Field(default=(), description="Modules with listener classes, comma-separated.")
    events_api: bool = Field(default=False, description="Accept `POST /events/{name}`.")
    demo: bool = Field(default=False, description="Serve the demo page and its routes (`hub serve`).")
    dashboard: bool = Field(default=False, description="Serve `/dashboard`, for administrators.")
    cors_origins: _List = Field(default=(), description="Origins browsers may call from, exact, comma-separated.")
    root_path: str = Field(default="", description="Path under which a proxy shows the hub, such as `/live`.")
    trusted_proxies: _List = Field(
        default=(),
        description="Addresses or networks of proxies whose `X-Forwarded-…` count, or `unix`; comma-separated.",
    )
    anonymous_subscribe: _List = Field(
        default=(),
        description="Topics and patterns that anybody may read where identities are known, comma-separated; "
        "public notifications only.",
    )
    anonymous_publish: _List = Field(
        default=(),
        description="Topics and patterns that anybody may publish to where identities are known, comma-separated.",
    )
    recheck: float = Field(
        default=30.0, ge=1, le=86_400, description="Seconds within which the application is asked about open streams."
    )
    refuse: Literal["auto", "status"] = Field(
        default="auto",
        description="How streams are refused: `auto`: so that an `EventSource` can read it; `status`: by status.",
    )
    websocket_deflate: bool = Field(
        default=False, description="Compress messages over WebSocket for clients that offer it."
    )
    socketio: bool = Field(
        default=False, description="Serve clients of Socket.IO at `/socket.io/`, where streams are served."
    )
    jwt_audience: Annotated[str | None, BeforeValidator(_none)] = Field(
        default=None, description="Audience (`aud`) that tokens must be for; unset: tokens must not name one."
    )
    jwt_issuer: Annotated[str | None, BeforeValidator(_none)] = Field(
        default=None, description="Issuer (`iss`) that tokens must be from; unset: any that has a key."
    )
    jwt_leeway: float = Field(
        default=10.0, ge=0, le=300, description="Seconds by which the clock of whoever issues tokens may differ."
    )
    drain: float = Field(default=3.0, ge=0, le=3600, description="Seconds over which streams are ended at shutdown.")
    finish: float = Field(
        default=30.0, ge=0, le=86_400, description='Seconds that handler streams with `drain="finish"` may take to end.'
    )
    heartbeat: float = Field(default=15.0, ge=0.05, le=3600, description="Seconds of idleness before a heartbeat.")
    peer_timeout: float = Field(default=30.0, ge=0.05, le=3600, description="Seconds a peer may take nothing.")
    buffer_bytes: int = Field(
        default=1024 * 1024, ge=64 * 1024, le=1024**3, description="Bytes that may wait for one slow reader."
    )
    slow: SlowPolicy = Field(default=SlowPolicy.DISCONNECT, description="What happens when more would wait.")
    max_connections: int = Field(
        default=0, ge=0, le=10_000_000, description="Open streams at most; 0: as many as the file limit has room for."
    )
    state: Annotated[Path | None, BeforeValidator(_none)] = Field(
        default=None, description="File that keeps revocations; none: beside the log's file, or in memory only."
    )
    max_per_user: int = Field(
        default=10_000, ge=0, le=10_000_000, description="Streams one user may hold at once; 0: no limit."
    )
    per_user: PerUser = Field(
        default=PerUser.NEWEST, description="Which stream gives way when a user opens more: it is refused, or ended."
    )
    max_per_address: int = Field(
        default=1_000,
        ge=0,
        le=10_000_000,
        description="Streams one address may hold at once, an IPv6 network of 64 bits counted as one; 0: no limit.",
    )
    connect_rate: float = Field(
        default=100.0, ge=0, le=10**6, description="Streams opened per second by one address; 0: no limit."
    )
    refuse_rate: float = Field(
        default=100.0,
        ge=0,
        le=10**6,
        description="Requests refused per second (401, 403) of one user or one address; what comes beyond that is not "
        "looked at; 0: no limit.",
    )
    ticket_rate: float = Field(
        default=5.0, ge=0, le=10**6, description="Tickets given per second to one user; 0: no limit."
    )
    publish_rate: float = Field(
        default=10_000.0,
        ge=0,
        le=10**6,
        description="Notifications published per second by one user, or by one address of unknown users; 0: no limit.",
    )
    publish_rate_total: float = Field(
        default=0.0, ge=0, le=10**6, description="Notifications published per second over HTTP by all; 0: no limit."
    )
    header_timeout: float = Field(
        default=10.0, gt=0, le=3600, description="Seconds in which the headers of a request must come (`hub serve`)."
    )
    body_timeout: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds in which its body must come after that (`hub serve`)."
    )
    allowed_hosts: _List = Field(
        default=(),
        description="Host names beside those of loopback to which the hub answers; comma-separated.",
    )
    retain_count: Annotated[int | None, BeforeValidator(_none)] = Field(
        default=None, ge=1, le=10**12, description="Notifications kept; unset: 100,000 in memory, 1,000,000 in SQLite."
    )
    retain_bytes: Annotated[int | None, BeforeValidator(_none)] = Field(
        default=None,
        ge=1024,
        le=10**15,
        description="Bytes kept; unset: 48 MiB in memory, 1 GiB in SQLite.",
    )
    retain_age: Annotated[float | None, BeforeValidator(_none)] = Field(
        default=None, gt=0, le=10**10, description="Seconds the log keeps a notification; unset: no limit."
    )
    retain_topics: _Counts = Field(
        default={},
        description="How many notifications to keep of each topic that matches a pattern, such as `state/**=1`; "
        "comma-separated.",
    )
    ai_provider: Annotated[str | None, BeforeValidator(_none)] = Field(
        default=None,
        description="Who answers on `/ai/chat/stream`: `simulated`, `openai`, or a class of yours as `module:Class`; "
        "`application`: nobody there, but what the application begins can be watched; unset: there are no such routes.",
    )
    ai_base_url: Annotated[str | None, BeforeValidator(_none)] = Field(
        default=None, description="Address of an OpenAI-compatible API; unset: OpenAI's own."
    )
    ai_api_key: Annotated[str | None, BeforeValidator(_none)] = Field(
        default=None,
        repr=False,
        description="Key for that API; unset: what `OPENAI_API_KEY` says, but only for OpenAI's own.",
    )
    ai_model: Annotated[str | None, BeforeValidator(_none)] = Field(
        default=None, description="Model that answers where the request names none."
    )
    ai_window: float = Field(
        default=0.03, ge=0, le=1, description="Seconds in which tokens gather; 0: each goes alone."
    )
    ai_keep: float = Field(
        default=300.0, ge=0, le=86_400, description="Seconds an answer can be watched after its end."
    )
    ai_keep_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        le=10**12,
        description="Bytes of all answers that have ended and are kept; beyond it those that ended first go.",
    )
    ai_bytes: int = Field(default=1024 * 1024, ge=1024, le=1024**3, description="Bytes of one answer.")
    ai_per_user: int = Field(default=16, ge=1, le=10**6, description="Answers generated at once for one owner.")
    ai_total: int = Field(default=10_000, ge=1, le=10**6, description="Answers generated at once.")
    ai_first_timeout: float = Field(
        default=60.0, gt=0, le=86_400, description="Seconds of silence before the first token."
    )
    ai_gap_timeout: float = Field(default=60.0, gt=0, le=86_400, description="Seconds of silence after it.")
    ai_timeout: float = Field(default=600.0, gt=0, le=86_400, description="Seconds until the answer is complete.")
    ai_unwatched: Annotated[float | None, BeforeValidator(_none)] = Field(
        default=None,
        gt=0,
        le=86_400,
        description="Seconds an answer is generated that nobody watches; unset: to its end.",
    )
    ai_simulated_tokens: int = Field(default=60, ge=1, le=10**6, description="Tokens of a simulated answer, at least.")
    ai_simulated_first: float = Field(default=0.3, ge=0, le=3600, description="Seconds until its first token.")
    ai_simulated_rate: float = Field(default=40.0, gt=0, le=10**6, description="Its tokens per second.")
    loop: Literal["auto", "asyncio", "uvloop"] = Field(
        default="auto", description="Event loop of `hub serve`; auto: uvloop where it is installed."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="What `hub serve` logs."
    )
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] = Field(
        default="text", description="How `hub serve` writes its log: lines to read, or a JSON object in each line."
    )
    otel: bool = Field(
        default=False, description="Trace notifications with OpenTelemetry, which the extra `otel` brings."
    )
    access_log: bool = Field(default=False, description="Log every HTTP request, without query strings (`hub serve`).")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what is shown of the settings: of an address no password."""
        for name, value in super().__repr_args__():
            yield name, _without_password(value) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            sent = origin_of(origin)
            if not sent:
                raise ValueError(f"{origin!r} is not an origin such as https://app.example.com:8443")
            if sent != origin:
                raise ValueError(f"{origin!r} is not how browsers spell it: they send {sent}")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if name_of(host) is None:
                raise ValueError(f"{host!r} is not a host name such as hub.example.com")
        return value

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, value: str) -> str:
        prefix = encoded_prefix(value) if value else ""
        if prefix is None:
            raise ValueError("is not a path such as /live")
        return prefix

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each != UNIX:
                network_of(each)
        return value

    @field_validator("listeners")
    @classmethod
    def _modules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{name!r} is not the name of a Python module")
        return value

    @field_validator("ai_provider")
    @classmethod
    def _who(cls, value: str | None) -> str | None:
        if value not in {None, "simulated", "openai", "application"} and not _CLASS.fullmatch(value or ""):
            raise ValueError("is none of simulated, openai and application, nor a class such as answers.mine:Parrot")
        return value

    @field_validator("ai_api_key")
    @classmethod
    def _sendable(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isprintable()):
            raise ValueError("has a character that no HTTP header can carry")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_secret(value.get_secret_value())
        return value

    @field_validator("jwt_keys", "jwks_url")
    @classmethod
    def _only_one(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        for other in ("jwt_secret", "jwt_keys"):
            if value is not None and other != info.field_name and info.data.get(other) is not None:
                raise ValueError(f"can't be used beside {other}: the keys for tokens have one source")
        return value if not isinstance(value, str) else check_keys_url(value)

    @field_validator("jwt_audience", "jwt_issuer")
    @classmethod
    def _of_keys(cls, value: str | None, info: ValidationInfo) -> str | None:
        sources = ("jwt_secret", "jwt_keys", "jwks_url")
        if value is not None and all(info.data.get(each, "wrong") is None for each in sources):
            raise ValueError(f"means nothing without keys: set {', '.join(sources[:2])} or {sources[2]}")
        return value

    @field_validator("retain_topics", "anonymous_subscribe", "anonymous_publish")
    @classmethod
    def _patterns(cls, value: _Patterns) -> _Patterns:
        for pattern in value:
            if why := fault(pattern, "/", MAX_SEGMENTS):
                raise ValueError(f"{pattern!r} {why}")
        return value

    @field_validator("log")
    @classmethod
    def _address(cls, value: str) -> str:
        LogURL.parse(value)
        return value

    @field_validator("state")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is not None and (_SCHEME.match(str(value)) or "\0" in str(value)):
            raise ValueError("is not the path of a file, such as data/hub.state.db")
        return value

    @property
    def takes_tokens(self) -> bool:
        """Whether keys for tokens are configured, so that the hub knows who asks."""
        return any(getattr(self, name) is not None for name in _KEYS)

    @field_validator("host", "admin_host")
    @classmethod
    def _exposed(cls, value: str, info: ValidationInfo) -> str:
        keys = any(info.data.get(name) is not None for name in _KEYS)
        if info.data.get("insecure") is False and not keys and not is_loopback(value):
            what = "subscribe and publish" if info.field_name == "host" else "end streams and read all statistics"
            raise ValueError(
                f"can be reached from other machines, where anybody could then {what}, for no "
                "authorization is configured; configure keys for tokens (HUB_JWT_SECRET, HUB_JWT_KEYS, HUB_JWKS_URL), "
                "listen on 127.0.0.1 behind a proxy that decides who may, or insist with --insecure (HUB_INSECURE=1)"
            )
        return value

    @field_validator("admin_host")
    @classmethod
    def _without_port(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("admin_port", 0) is None:
            raise ValueError("means nothing without admin_port (HUB_ADMIN_PORT)")
        return value

    @field_validator("tls_key")
    @classmethod
    def _lonely(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("tls_cert", value) is None:
            raise ValueError("needs tls_cert beside it")
        return value

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        file: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Settings:
        """Return the settings from *flags*, the environment and *file*.

        Args:
            flags: the values from the command line, by field name; they have precedence.
            file: a TOML file with the fields as keys; None: the file that `HUB_CONFIG` names, if it is set.
            environ: the variables to read; `unknown_variables` finds those that are no setting.

        Raises:
            InvalidSettings: settings are wrong; the error names all of them, with their bounds.
        """
        named = environ.get(PREFIX + "CONFIG")
        file = file or (Path(named) if named else None)
        variables = {
            field: environ[PREFIX + field.upper()] for field in cls.model_fields if PREFIX + field.upper() in environ
        }
        try:
            return cls(**{**(_read(file) if file else {}), **variables, **(flags or {})})
        except ValidationError as error:
            raise InvalidSettings([_problem(each) for each in error.errors(include_url=False)]) from None


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable `HUB_*` that is no setting, with the setting that was probably meant."""
    known = {name.upper() for name in (*Settings.model_fields, *OTHER_VARIABLES)}
    names = {name: name.removeprefix(PREFIX) for name in sorted(environ) if name.startswith(PREFIX)}
    return [
        f"{name} is set, but it is no setting of this hub{_meant(bare, known, PREFIX)}"
        for name, bare in names.items()
        if bare not in known and not _is_of_kubernetes(bare, environ[name])
    ]


def _is_of_kubernetes(name: str, value: str) -> bool:
    linked = name.endswith("PORT") and _ADDRESS.fullmatch(value) is not None
    return linked or _OF_KUBERNETES.fullmatch(name) is not None


def _meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    meant = nearest(name, known)
    return f"; did you mean {prefix}{meant}?" if meant else ""


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings([f"{file}: {error.strerror or error}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings([f"{file}: is not TOML: {error}"]) from None


def _without_password(text: str) -> str:
    """Return *text* without the names and passwords of an address in it, even of one that is written wrongly."""
    return re.sub(r"(password=)[^&'\"]*", r"\1…", re.sub(r"//.*@", "//…@", text))


def _problem(error: Any) -> str:
    """Return a sentence about one wrong setting, with its field name and its variable."""
    what = str(error["msg"]).removeprefix("Value error, ")
    field = str(error["loc"][0])
    if field not in Settings.model_fields:
        return f"{field}: is not a setting{_meant(field.removeprefix(PREFIX), Settings.model_fields)}"
    name = f"{field} ({PREFIX}{field.upper()})"
    if not Settings.model_fields[field].repr:  # a secret
        return f"{name}: {what}"
    shown = _without_password(repr(error["input"]))
    return f"{name}: {shown if len(shown) < 80 else shown[:77] + '...'}: {what}"
