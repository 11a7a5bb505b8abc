"""`hub token`: make a token, explain one, or make a key to sign them with."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.errors import AuthUnavailable, HubError, InvalidInput, InvalidTopic, Unauthorized
from hub.settings import PREFIX, Settings
from hub.topics import topic_of

if TYPE_CHECKING:  # they load a library of cryptography, which the other commands do not need
    from hub.access.identity import Identity
    from hub.access.keys import Key

ALGORITHMS = ("HS256", "ES256", "EdDSA")
MAX_INPUT = 64 * 1024
MAX_COUNT = 100_000
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class KeyUnusable(HubError):
    """There is no key that can do what is asked."""


class _WrongClaim(InvalidInput):
    """An argument that no token may have; the text names the claim."""

    def __str__(self) -> str:
        return self.why


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to *parser*."""
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--show", nargs="?", const="", metavar="TOKEN", help="explain a token; without TOKEN, that on standard input"
    )
    instead.add_argument(
        "--make-key", nargs="?", const="HS256", choices=ALGORITHMS, help="make a secret (HS256) or a private key"
    )
    instead.add_argument("--public-key", action="store_true", help="print the public half of the key")
    parser.add_argument("--sub", metavar="ID", help="the user; required to make a token")
    for right in ("subscribe", "publish"):
        parser.add_argument(f"--{right}", action="append", metavar="TOPIC", help="topic or pattern; repeatable")
    parser.add_argument("--admin", action="store_true", help="may administer the hub")
    parser.add_argument("--presence", action="store_true", help="may be told who is there")
    parser.add_argument("--info", type=_json, metavar="JSON", help="what others are told of the user, an object")
    parser.add_argument(
        "--expires-in", type=_seconds, default=3600, metavar="TIME", help="seconds, or 15m, 12h, 30d; default 1h"
    )
    parser.add_argument(
        "--count", type=_count, metavar="N", help="make N tokens, one per line, for the users ID-1 to ID-N"
    )
    parser.add_argument("--jti", metavar="ID", help="the token's id; default: a random one")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help=f"PEM or JWK set; default: {PREFIX}JWT_SECRET or {PREFIX}JWT_KEYS"
    )
    parser.add_argument("--kid", metavar="ID", help="which key of the file signs; default: the first")
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file with settings ({PREFIX}CONFIG)")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError("is not JSON") from None


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 15m, 12h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_COUNT:,}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do what is asked, and return the exit status."""
    if args.make_key is not None:
        from hub.access.signer import make_key  # noqa: PLC0415

        print(make_key(args.make_key))
        return 0
    settings = Settings.load(file=args.config)
    if args.show is not None:
        return _show(args, settings)
    if args.public_key:
        return _print_public(args, settings)
    if args.sub is None:
        raise InvalidInput("sub", "is needed to make a token: --sub ID")
    if args.count is not None and args.jti is not None:
        raise InvalidInput("jti", "can't be that of several tokens (--count)")
    users = [args.sub] if args.count is None else [f"{args.sub}-{number}" for number in range(1, args.count + 1)]
    print(*_tokens(args, settings, users), sep="\n")
    return 0


# ---- keys ----


def _keys(args: argparse.Namespace, settings: Settings) -> list[Key]:
    """Return the keys of `--key`, or of the settings; private ones with what it takes to sign."""
    from hub.access.keys import read_keys, secret_key  # noqa: PLC0415

    file = args.key or settings.jwt_keys
    if args.key is None and settings.jwt_secret is not None:
        return [secret_key(settings.jwt_secret.get_secret_value())]
    if file is None:
        raise KeyUnusable(
            f"there is no key here: name a file with --key, or set {PREFIX}JWT_SECRET or {PREFIX}JWT_KEYS"
        )
    try:
        return read_keys(file)
    except ValueError as error:
        raise KeyUnusable(f"{file}: {error}") from None


def _print_public(args: argparse.Namespace, settings: Settings) -> int:
    from hub.access.signer import public_pem  # noqa: PLC0415

    for key in _keys(args, settings):
        print(public_pem(key))
    return 0


# ---- making one ----


def _tokens(args: argparse.Namespace, settings: Settings, users: list[str]) -> Iterator[str]:
    """Yield a token that the hub will accept for each of *users*.

    Raises:
        InvalidInput: an argument breaks the rule of its claim.
        KeyUnusable: no key can sign.
    """
    from hub.access.keys import Keys  # noqa: PLC0415
    from hub.access.signer import sign  # noqa: PLC0415
    from hub.access.tokens import Tokens  # noqa: PLC0415

    key = _signing(_keys(args, settings), args.kid)
    own = Tokens(Keys([key]), audience=settings.jwt_audience, issuer=settings.jwt_issuer, leeway=settings.jwt_leeway)
    for user in users:
        token = sign(key, _claims(args, settings, user))
        try:
            own.verify(token)
        except Unauthorized as error:
            raise _WrongClaim("claim", error.why) from None
        yield token


def _signing(keys: list[Key], kid: str | None) -> Key:
    named = [key for key in keys if kid is None or key.kid == kid]
    if not named:
        raise KeyUnusable(f"there is no key with the kid {kid!r}")
    for key in named:
        if key.signing is not None:
            return key
    raise KeyUnusable("there are only public keys, which can't sign: name the private one with --key")


def _claims(args: argparse.Namespace, settings: Settings, user: str) -> dict[str, Any]:
    now = int(time.time())
    rights = {
        "subscribe": args.subscribe,
        "publish": args.publish,
        "admin": args.admin or None,
        "presence": args.presence or None,
        "info": args.info,
    }
    rights = {name: value for name, value in rights.items() if value is not None}
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "sub": user,
        "iat": now,
        "exp": now + args.expires_in,
        "jti": secrets.token_urlsafe(12) if args.jti is None else args.jti,
        "hub": rights or None,
    }
    return {name: value for name, value in claims.items() if value is not None}


# ---- explaining one ----


def _show(args: argparse.Namespace, settings: Settings) -> int:
    """Print what a token says, and whether it counts; return 0 if it does."""
    text = (args.show or sys.stdin.read(MAX_INPUT)).strip().removeprefix("Bearer ")
    for name, part in zip(("header", "claims"), text.split("."), strict=False):
        # Escaped, for nothing has been verified yet, and a terminal obeys control characters.
        with suppress(ValueError):
            print(f"{name}  {json.dumps(_part(part))}")
    try:
        identity = asyncio.run(_verify(text, args, settings))
    except Unauthorized as error:
        print(f"not valid ({error.code}): {error}")
        return 1
    except AuthUnavailable:
        print(f"not checked: the keys of {PREFIX}JWKS_URL can't be fetched")
        return 1
    if identity is None:
        print(f"not checked: no key is set ({PREFIX}JWT_SECRET, {PREFIX}JWT_KEYS, {PREFIX}JWKS_URL, or --key)")
        return 1
    print(*_lines(identity), sep="\n")
    return 0


def _part(part: str) -> dict[str, Any]:
    from hub.access.base64url import decoded  # noqa: PLC0415
    from hub.access.strict_json import object_in  # noqa: PLC0415

    return object_in(decoded(part))


async def _verify(text: str, args: argparse.Namespace, settings: Settings) -> Identity | None:
    from hub.web.verifier import verifier_of  # noqa: PLC0415

    if args.key is not None:
        settings = settings.model_copy(update={"jwt_secret": None, "jwks_url": None, "jwt_keys": args.key})
    verifier = verifier_of(settings)
    if verifier is None:
        return None
    try:
        return await verifier.verify(text)
    finally:
        await verifier.aclose()


def _lines(identity: Identity) -> list[str]:
    """Return what *identity* may do, a line each."""
    own = []
    with suppress(InvalidTopic):
        own.append(topic_of("user", identity.user))
    left = (identity.expires or 0) - time.time()
    until = datetime.fromtimestamp(identity.expires or 0, UTC)
    also = [name for name in ("admin", "presence") if getattr(identity, name)]
    return [
        f"valid until {until:%Y-%m-%d %H:%M:%S} UTC, for {_span(left)}",
        f"user      {json.dumps(identity.user)}",
        f"may read  {', '.join([*own, *identity.subscribe]) or 'nothing'}",
        f"may send  {', '.join(identity.publish) or 'nothing'}",
        *([f"also      {', '.join(also)}"] if also else []),
    ]


def _span(seconds: float) -> str:
    if seconds <= 0:
        return "as long as clocks may differ"
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
