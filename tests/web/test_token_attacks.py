"""Forged, damaged and misleading tokens, sent to a hub; what each proves is in tests/access/test_tokens.py."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.access.jwt import SECRET, claims, part, private_pem, public_pem, token
from tests.web.client import StreamEnded
from tests.web.conftest import Complaints, Serve
from tests.web.server import Answer, Server

NFC, NFD = (unicodedata.normalize(form, "zoé") for form in ("NFC", "NFD"))


@pytest.fixture
async def server(serve: Serve) -> Server:
    """A hub for tokens of one secret and one audience, where anybody may read news."""
    setup = {"routes": None}
    return await serve(setup=setup, jwt_secret=SECRET, jwt_audience="hub", anonymous_subscribe=("news",))


def said(**changed: Any) -> dict[str, Any]:
    """Return claims that are good today."""
    return claims(**{"exp": int(time.time()) + 86_400, "aud": "hub", "hub": {"subscribe": ["orders/**"]}, **changed})


async def read(server: Server, text: str, *topics: str, cookie: bool = False) -> Answer:
    """Return the answer to somebody who shows the token *text*, and asks for the history of *topics*."""
    shown = {"Cookie": f"hub_token={text}"} if cookie else {"Authorization": f"Bearer {text}"}
    query = urlencode([("topic", topic) for topic in topics])
    return await server.ask("GET", f"/notifications/history?{query}", headers=shown)


def forged() -> dict[str, tuple[str, str]]:
    """Return tokens that prove nothing, each with the code that it is refused with."""
    good = token(said())
    head, body, signature = good.split(".")
    none = part(json.dumps({"alg": "none"}).encode())
    now = int(time.time())
    invalid = {
        "none": f"{none}.{body}.",
        "none, with a signature": f"{none}.{body}.{signature}",
        "another algorithm": token(said(), algorithm="HS512"),
        "another algorithm named": token(said(), header={"alg": "RS256"}, algorithm="HS256"),
        "another secret": token(said(), key=b"x" * 32),
        "an empty secret": token(said(), key=b""),
        "a kid that is a path": token(said(), header={"alg": "HS256", "kid": "../../../dev/null"}, key=b""),
        "a kid that is a query": token(said(), header={"alg": "HS256", "kid": "' OR 1=1 --"}, key=b"\0" * 32),
        "keys elsewhere": token(said(), header={"alg": "RS256", "jku": "http://127.0.0.1:1/k"}, algorithm="RS256"),
        "not yet": token(said(nbf=now + 86_400)),
        "issued in the future": token(said(iat=now + 86_400)),
        "another audience": token(said(aud="other")),
        "several other audiences": token(said(aud=["Hub", "hub2"])),
        "no audience": token(said(aud=None)),
        "no end": token(said(exp=None)),
        "an end that is text": token(said(exp=str(now + 86_400))),
        "cut in the signature": good[:-3],
        "cut before the signature": f"{head}.{body}.",
        "cut in the claims": good[: len(head) + 20],
        "other claims": f"{head}.{part(json.dumps(said(sub='root')).encode())}.{signature}",
        "a claim twice": token(b'{"sub":"42","aud":"hub","sub":"root","exp":%d}' % (now + 86_400)),
        "rights twice": token(b'{"sub":"42","aud":"hub","exp":%d,"hub":{},"hub":{"admin":true}}' % (now + 86_400)),
        "a control character": token(said(sub="a\nb")),
        "a character that can't be seen": token(said(sub="ad\u200bmin")),
        "a character that turns the text around": token(said(sub="\u202enimda")),
        "half a character": token(said(sub="\ud800")),
        "a pattern that is none": token(said(hub={"subscribe": ["orders*"]})),
        "a pattern with a control character": token(said(hub={"subscribe": ["orders/\0"]})),
        "a pattern that can't be seen": token(said(hub={"subscribe": ["\ufeff**"]})),
        "a star that looks like one": token(said(hub={"subscribe": ["user/\u200b*"]})),
        "rights that are text": token(said(hub={"admin": "true"})),
    }
    expired = {"expired": token(said(exp=now - 60)), "long ago": token(said(exp=0))}
    return {name: (text, "token_invalid") for name, text in invalid.items()} | {
        name: (text, "token_expired") for name, text in expired.items()
    }


@pytest.mark.parametrize("cookie", [False, True], ids=["header", "cookie"])
async def test_a_token_that_proves_nothing_is_refused_even_where_anybody_may_read(server: Server, cookie: bool) -> None:
    assert (await read(server, token(said()), "orders/1", cookie=cookie)).status == 200
    for name, (text, code) in forged().items():
        for topic in ("orders/1", "news"):
            answer = await read(server, text, topic, cookie=cookie)
            assert (name, answer.status, answer.json()["code"]) == (name, 401, code)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            for piece in filter(lambda piece: len(piece) > 20, text.split(".")):
                assert piece.encode() not in answer.body


async def test_a_megabyte_in_the_place_of_a_token_is_refused(server: Server, complaints: Complaints) -> None:
    assert (await read(server, token(said(more="x" * 5_800)), "orders/1")).status == 200, "as long as a line may be"
    client = await server.client()
    with suppress(ConnectionError, StreamEnded):  # it may be cut before it is sent
        await client.request("GET", "/", headers={"Authorization": f"Bearer {token(said())}{'A' * 1_000_000}"})
        await client.head()
    assert client.status in {0, 400}
    await client.gone()
    assert (await read(server, token(said()), "orders/1")).status == 200, "the hub goes on"
    assert [each for each in complaints.take() if "A" * 100 in each] == []


async def test_a_public_key_signs_nothing(serve: Serve, tmp_path: Path) -> None:
    """Key confusion: whoever knows the public key signs with it as if it were a secret."""
    file = tmp_path / "public.pem"
    file.write_bytes(public_pem("RS256"))
    server = await serve(setup={"routes": None}, jwt_keys=file, jwt_audience="hub")
    assert (await read(server, token(said(), algorithm="RS256"), "orders/1")).status == 200
    text = f"{part(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{part(json.dumps(said()).encode())}"
    for secret in (public_pem("RS256"), public_pem("RS256").strip(), private_pem("RS256")):
        signature = part(hmac.digest(secret, text.encode(), hashlib.sha256))
        answer = await read(server, f"{text}.{signature}", "orders/1")
        assert (answer.status, answer.json()["code"]) == (401, "token_invalid")


async def test_a_token_elsewhere_in_the_request_is_nothing(server: Server) -> None:
    text = token(said())
    for query in (f"token={text}", f"access_token={text}", f"authorization=Bearer+{text}"):
        assert (await server.ask("GET", f"/notifications/history?topic=orders/1&{query}")).status in {400, 401}
    answer = await server.ask("GET", f"/notifications/subscribe?topic=orders/1&ticket={text}")
    assert (answer.status, answer.json()["code"]) == (401, "token_invalid")
    for name in ("X-Authorization", "Proxy-Authorization", "X-Hub-Token"):
        path = "/notifications/history?topic=orders/1"
        assert (await server.ask("GET", path, headers={name: f"Bearer {text}"})).status == 401
    assert (
        await server.ask("GET", "/notifications/history?topic=orders/1", headers={"Cookie": f"token={text}"})
    ).status == 401


# who: the topic that is theirs, and topics that look as if they were
OWN = {
    "*": ("user/%2A", ["user/*", "user/ann", "user/%2a"]),
    "**": ("user/%2A%2A", ["user/**", "user/ann"]),
    "a/b": ("user/a%2Fb", ["user/a/b", "user/a"]),
    "ann/../bob": ("user/ann%2F..%2Fbob", ["user/bob"]),
    "%2A": ("user/%252A", ["user/%2A", "user/*"]),
    "%2F": ("user/%252F", ["user/%2F", "user//"]),
    "ann": ("user/ann", ["user/Ann", "user/ann ", "user/аnn", "user/ａｎｎ"]),
    "Ann": ("user/Ann", ["user/ann"]),
    NFC: (f"user/{NFC}", [f"user/{NFD}"]),
    NFD: (f"user/{NFD}", [f"user/{NFC}"]),
}


@pytest.mark.parametrize("user", OWN, ids=ascii)
async def test_an_id_is_one_user_however_it_is_spelled(server: Server, user: str) -> None:
    own, others = OWN[user]
    text = token(said(sub=user))
    assert (await read(server, text, own)).status == 200
    for each in others:
        assert (await read(server, text, each)).status in {400, 403}, each


async def test_a_grant_is_for_the_topics_that_it_spells(server: Server) -> None:
    text = token(said(hub={"subscribe": [NFC, f"{NFC}/*", "orders/ａ"]}))
    for topic, status in ((NFC, 200), (f"{NFC}/1", 200), (NFD, 403), (f"{NFD}/1", 403), ("orders/a", 403)):
        assert (await read(server, text, topic)).status == status
    for topic in ("orders/\u200b1", "orders/1\0", "\ufefforders/1"):
        assert (await read(server, token(said()), topic)).status == 400


async def test_revoking_one_spelling_of_a_user_leaves_the_other(server: Server) -> None:
    texts = {user: token(said(sub=user)) for user in (NFC, NFD)}
    admin = {"Authorization": f"Bearer {token(said(sub='root', hub={'admin': True}))}"}
    path = f"/notifications/users/{quote(NFC)}/connections"
    assert (await server.ask("DELETE", path, headers=admin)).status == 204
    statuses = {user: (await read(server, text, "orders/1")).status for user, text in texts.items()}
    assert statuses == {NFC: 401, NFD: 200}
