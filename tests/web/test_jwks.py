"""Keys from an address, with an issuer on a real port that is good, slow, broken and hostile."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from pydantic import SecretStr

from hub import Settings
from hub.access.keys import Keys
from hub.access.tokens import Tokens
from hub.errors import AuthUnavailable, Unauthorized
from hub.web import jwks
from hub.web.jwks import FIRST_PAUSE, FRESH, MAX_BYTES, PAUSE, STALE, FetchFailed, Jwks, fetch
from hub.web.verifier import Known, verifier_of
from tests.access.jwt import NOW, SECRET, SUBJECT, claims, jwk, jwk_set, private, public_pem, token

BOUND = 30.0


class Issuer:
    """A server with a JWK set, which a test tells what to answer.

    Attributes:
        answer: what it answers.
        asked: the requests so far.
        hold: set: it answers; clear: it keeps who asks waiting.
    """

    def __init__(self) -> None:
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.publish
        self.data = b""
        self.asked: list[web.Request] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.came = asyncio.Event()
        self.url = ""

    async def publish(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.data, content_type="application/json")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.came.set()
        await self.hold.wait()
        return await self.answer(request)

    async def serve(self, tls: ssl.SSLContext | None = None) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/jwks?appid=s3cr3t"
        return runner


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    issuer.data = jwk_set(jwk("ES256", kid="a"))
    runner = await issuer.serve()
    async with asyncio.timeout(BOUND):
        yield issuer
    issuer.hold.set()
    await runner.cleanup()


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def verifier(issuer: Issuer, clock: Clock) -> AsyncIterator[Jwks]:
    verifier = Jwks(issuer.url, Tokens(Keys(), clock=lambda: NOW), clock=clock)
    yield verifier
    await verifier.aclose()


def signed(kid: str | None, kind: str = "ES256") -> str:
    header = {"alg": "ES256", "typ": "JWT", **({} if kid is None else {"kid": kid})}
    return token(header=header, algorithm="ES256", key=private(kind))


async def code_of(verifier: Jwks, text: str) -> str:
    with pytest.raises((Unauthorized, AuthUnavailable)) as caught:
        await verifier.verify(text)
    return str(getattr(caught.value, "code"))  # noqa: B009 - both errors have it


# ---- fetching when it is needed ----


async def test_the_keys_are_fetched_once_for_many_tokens(issuer: Issuer, verifier: Jwks) -> None:
    await verifier.open()
    for _ in range(3):
        assert (await verifier.verify(signed("a"))).user == SUBJECT
    assert len(issuer.asked) == 1


async def test_who_comes_while_they_are_fetched_waits_for_the_same_fetch(issuer: Issuer, verifier: Jwks) -> None:
    issuer.hold.clear()
    waiting = [asyncio.create_task(verifier.verify(signed("a"))) for _ in range(20)]
    await issuer.came.wait()
    waiting.pop().cancel()  # who leaves does not take the fetch along
    issuer.hold.set()
    assert {each.user for each in await asyncio.gather(*waiting)} == {SUBJECT}
    assert len(issuer.asked) == 1


async def test_a_new_key_is_found_by_its_kid(issuer: Issuer, verifier: Jwks, clock: Clock) -> None:
    await verifier.open()
    issuer.data = jwk_set(jwk("ES256", kid="a"), jwk("ES256 other", kid="b"))
    clock.now += PAUSE
    assert (await verifier.verify(signed("b", "ES256 other"))).user == SUBJECT
    assert len(issuer.asked) == 2


async def test_kids_that_do_not_exist_cause_no_flood(issuer: Issuer, verifier: Jwks, clock: Clock) -> None:
    await verifier.open()
    for number in range(50):
        assert await code_of(verifier, signed(f"x{number}")) == "token_invalid"
    assert len(issuer.asked) == 1, "it has just been fetched"
    clock.now += PAUSE
    answers = await asyncio.gather(*(code_of(verifier, signed(f"x{number}")) for number in range(50)))
    assert set(answers) == {"token_invalid"}
    assert len(issuer.asked) == 2
    clock.now += PAUSE - 1
    assert await code_of(verifier, signed("x")) == "token_invalid"
    assert len(issuer.asked) == 2


async def test_other_bad_tokens_cause_no_fetch(issuer: Issuer, verifier: Jwks, clock: Clock) -> None:
    await verifier.open()
    clock.now += PAUSE
    for text in ("", "a.b.c", signed("a", "ES256 other"), signed("a")[:-8], token(algorithm="HS512")):
        assert await code_of(verifier, text) == "token_invalid"
    assert len(issuer.asked) == 1


async def test_old_keys_are_renewed_while_nobody_waits(issuer: Issuer, verifier: Jwks, clock: Clock) -> None:
    await verifier.open()
    issuer.data = jwk_set(jwk("ES256 other", kid="b"))
    issuer.came.clear()
    issuer.hold.clear()
    clock.now += FRESH + 1
    assert (await verifier.verify(signed("a"))).user == SUBJECT
    await issuer.came.wait()
    assert (await verifier.verify(signed("a"))).user == SUBJECT
    issuer.hold.set()
    assert (await verifier.verify(signed("b", "ES256 other"))).user == SUBJECT
    assert await code_of(verifier, signed("a")) == "token_invalid", "it was withdrawn, and its tokens are forgotten"
    assert len(issuer.asked) == 2


async def test_keys_that_can_not_be_renewed_count_for_an_hour(issuer: Issuer, verifier: Jwks, clock: Clock) -> None:
    await verifier.open()
    issuer.answer = broken
    clock.now += STALE
    assert (await verifier.verify(signed("a"))).user == SUBJECT
    clock.now += 1
    assert await code_of(verifier, signed("a")) == "auth_unavailable"
    issuer.answer = issuer.publish
    clock.now += PAUSE
    assert (await verifier.verify(signed("a"))).user == SUBJECT


async def test_without_keys_nobody_can_tell_and_soon_it_is_tried_again(
    issuer: Issuer, verifier: Jwks, clock: Clock
) -> None:
    issuer.answer = broken
    await verifier.open()
    for _ in range(5):
        assert await code_of(verifier, signed("a")) == "auth_unavailable"
    assert len(issuer.asked) == 1
    issuer.answer = issuer.publish
    clock.now += FIRST_PAUSE
    assert (await verifier.verify(signed("a"))).user == SUBJECT


async def test_a_missing_key_that_can_not_be_looked_for_is_nobodys_fault(
    issuer: Issuer, verifier: Jwks, clock: Clock
) -> None:
    await verifier.open()
    issuer.answer = broken
    clock.now += PAUSE
    assert await code_of(verifier, signed("b")) == "auth_unavailable"
    assert (await verifier.verify(signed("a"))).user == SUBJECT


async def broken(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


# ---- what is no answer ----


def answering(**options: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(**options)  # type: ignore[arg-type]  # those of the table

    return answer


GOOD = jwk_set(jwk("ES256", kid="a"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"status": 404}, "it answers 404"),
        ({"status": 204}, "it answers 204"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, "it answers 302"),
        ({"status": 307, "headers": {"Location": "http://169.254.169.254/"}}, "it answers 307"),
        ({"body": b"<html>"}, "the answer is not JSON in UTF-8"),
        ({"body": jwk_set()}, "the answer has no key that can be used"),
        ({"body": jwk_set(jwk("HS256"))}, "the answer key 1 is secret, and published nevertheless"),
        ({"body": GOOD + b" " * MAX_BYTES}, "the answer is larger than 1,048,576 bytes"),
        ({"body": GOOD, "headers": {"Content-Encoding": "gzip"}}, "the answer is compressed"),
    ],
)
async def test_what_is_no_set_of_keys_is_not_taken(issuer: Issuer, options: dict[str, object], why: str) -> None:
    issuer.answer = answering(**options)
    with pytest.raises(FetchFailed, match=why):
        await fetch(issuer.url)
    assert len(issuer.asked) == 1, "no redirect is followed"


async def test_an_endless_answer_is_cut(issuer: Issuer) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" " * 65_536)
            sent += 65_536

    issuer.answer = endless
    with pytest.raises(FetchFailed, match="larger than"):
        await fetch(issuer.url)
    assert sent < 64 * MAX_BYTES


async def test_an_issuer_that_says_nothing_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.2)
    issuer.hold.clear()
    with pytest.raises(FetchFailed, match=r"no answer within 0\.2 s"):
        await fetch(issuer.url)


async def test_an_issuer_that_trickles_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.5)

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.05)

    issuer.answer = trickle
    with pytest.raises(FetchFailed, match="no answer within"):
        await fetch(issuer.url)


async def test_no_cookie_and_no_token_is_sent(issuer: Issuer, verifier: Jwks, clock: Clock) -> None:
    async def with_cookie(request: web.Request) -> web.StreamResponse:
        answer = await issuer.publish(request)
        answer.set_cookie("a", "b")
        return answer

    issuer.answer = with_cookie
    await verifier.open()
    clock.now += FRESH + 1
    await verifier.verify(signed("a"))
    clock.now += PAUSE
    await code_of(verifier, signed("x"))
    assert len(issuer.asked) >= 2
    assert not {"Cookie", "Authorization"} & {name for request in issuer.asked for name in request.headers}


async def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    issuer, tls = Issuer(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    runner = await issuer.serve(tls)
    try:
        with pytest.raises(FetchFailed, match="Certificate"):
            await fetch(issuer.url)
        assert not issuer.asked
    finally:
        await runner.cleanup()


async def test_nobody_there_is_an_ordinary_failure(unused_tcp_port: int) -> None:
    with pytest.raises(FetchFailed, match="ClientConnectorError"):
        await fetch(f"http://127.0.0.1:{unused_tcp_port}/")


async def test_addresses_in_a_token_are_not_visited(issuer: Issuer, verifier: Jwks, clock: Clock) -> None:
    await verifier.open()
    clock.now += PAUSE
    other = f"{issuer.url.partition('/jwks')[0]}/other"
    header = {"alg": "ES256", "kid": "x", "jku": other, "x5u": other}
    assert await code_of(verifier, token(header=header, algorithm="ES256")) == "token_invalid"
    assert {request.path for request in issuer.asked} == {"/jwks"}


# ---- what is logged ----


async def test_what_is_wrong_with_the_keys_is_logged_once_and_without_secrets(
    issuer: Issuer, verifier: Jwks, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    issuer.data = jwk_set(jwk("ES256", kid="a"), jwk("HS256", kid="b"), jwk("RSA 1024"))
    await verifier.open()
    clock.now += PAUSE
    await code_of(verifier, signed("x"))
    issuer.answer = broken
    clock.now += PAUSE
    await code_of(verifier, signed("x"))
    said = [record.getMessage() for record in caplog.records if record.name == "hub.access"]
    place = issuer.url.partition("?")[0]
    assert said == [
        f"of the keys at {place}, key 2 is secret, and published nevertheless: it must be replaced",
        f"of the keys at {place}, key 3 has 1,024 bits: RSA keys have 2,048 to 8,192",
        f"the keys at {place} can't be fetched: it answers 500",
    ]
    for piece in ("s3cr3t", SECRET, *signed("x").split(".")):
        assert piece not in caplog.text, "at level debug, by any library"


async def test_closing_ends_a_fetch_that_hangs(issuer: Issuer, verifier: Jwks) -> None:
    issuer.hold.clear()
    waiting = asyncio.create_task(verifier.verify(signed("a")))
    await issuer.came.wait()
    await verifier.aclose()
    with pytest.raises(AuthUnavailable):
        await waiting
    assert await code_of(verifier, signed("a")) == "auth_unavailable"
    assert len(issuer.asked) == 1


# ---- what the settings choose ----


async def test_the_settings_choose_what_verifies(issuer: Issuer, tmp_path: Path) -> None:
    assert verifier_of(Settings()) is None
    by_secret = verifier_of(Settings(jwt_secret=SecretStr(SECRET), jwt_audience="hub", jwt_issuer="me", jwt_leeway=0))
    assert isinstance(by_secret, Known)
    good = token(claims(exp=4_000_000_000, aud="hub", iss="me"))
    assert (await by_secret.verify(good)).user == SUBJECT
    for wrong in (claims(exp=4_000_000_000, iss="me"), claims(exp=4_000_000_000, aud="hub"), claims(exp=1)):
        with pytest.raises(Unauthorized):
            await by_secret.verify(token(wrong))
    file = tmp_path / "key.pem"
    file.write_bytes(public_pem("EdDSA"))
    by_file = verifier_of(Settings(jwt_keys=file))
    assert by_file is not None
    assert (await by_file.verify(token(claims(exp=4_000_000_000), algorithm="EdDSA"))).user == SUBJECT
    by_url = verifier_of(Settings(jwks_url=issuer.url))
    assert isinstance(by_url, Jwks)
    await by_url.open()
    far = token(claims(exp=4_000_000_000), header={"alg": "ES256", "kid": "a"}, algorithm="ES256")
    assert (await by_url.verify(far)).user == SUBJECT
    for each in (by_secret, by_file, by_url):
        await each.open()
        await each.aclose()
