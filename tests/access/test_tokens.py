"""What tokens prove, and every way in which they may not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import traceback
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from hub.access.identity import Identity
from hub.access.keys import Keys, read_keys
from hub.access.tokens import MAX_INFO_BYTES, MAX_PATTERNS, MAX_TOKEN_BYTES, Tokens, UnknownKey
from hub.errors import Unauthorized
from tests.access.jwt import (
    NOW,
    SECRET,
    SUBJECT,
    claims,
    jwk,
    jwk_set,
    key_of,
    part,
    private,
    private_pem,
    public_pem,
    secret_keys,
    signature,
    token,
)

ASYMMETRIC = ("RS256", "ES256", "EdDSA")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(secret_keys(), clock=clock)


def refused(tokens: Tokens, text: str) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        tokens.verify(text)
    return caught.value


def answer(tokens: Tokens, text: str) -> Identity | str:
    """Return the identity, or the code of the refusal."""
    try:
        return tokens.verify(text)
    except Unauthorized as error:
        return error.code


# ---- what they prove ----


def test_a_token_says_who_asks_with_what_rights_until_when(tokens: Tokens) -> None:
    rights = {
        "subscribe": ["orders", "stock/*", "orders"],
        "publish": ["room/**"],
        "admin": True,
        "presence": True,
        "info": {"name": "Ada", "years": [1815, 1852]},
    }
    whole = claims(iat=NOW - 5, nbf=NOW - 5, jti="t1", hub=rights, iss="somebody", more={"a": [1]})
    assert tokens.verify(token(whole)) == Identity(
        user=SUBJECT,
        subscribe=("orders", "stock/*"),
        publish=("room/**",),
        admin=True,
        presence=True,
        info={"name": "Ada", "years": [1815, 1852]},
        expires=NOW + 600,
        issued=NOW - 5,
        token="t1",
        by_token=True,
    )


def test_a_token_without_rights_gives_none(tokens: Tokens) -> None:
    assert tokens.verify(token()) == Identity(user=SUBJECT, expires=NOW + 600, by_token=True)
    assert tokens.verify(token(claims(hub={}))) == Identity(user=SUBJECT, expires=NOW + 600, by_token=True)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_every_algorithm_is_verified_with_its_public_key(algorithm: str, clock: Clock) -> None:
    tokens = Tokens(Keys([key_of(algorithm)]), clock=clock)
    assert tokens.verify(token(algorithm=algorithm)).user == SUBJECT


@pytest.mark.parametrize("algorithm", ["HS256", *ASYMMETRIC])
def test_what_another_library_signs_is_understood(algorithm: str, clock: Clock) -> None:
    key = SECRET if algorithm == "HS256" else private(algorithm)
    tokens = Tokens(secret_keys() if algorithm == "HS256" else Keys([key_of(algorithm)]), clock=clock)
    made = pyjwt.encode(claims(hub={"subscribe": ["a/**"]}), key, algorithm=algorithm)
    assert tokens.verify(made).subscribe == ("a/**",)


@pytest.mark.parametrize("user", ["*", "a/b", "ä", "日本", "%2F", "..", "user/1", "A", "a b", "👩", "x" * 251])
def test_any_visible_id_is_a_user_and_stays_as_it_is(tokens: Tokens, user: str) -> None:
    assert tokens.verify(token(claims(sub=user))).user == user


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_tokens_for_access_are_accepted(tokens: Tokens, kind: str | None) -> None:
    header = {"alg": "HS256"} if kind is None else {"alg": "HS256", "typ": kind}
    assert tokens.verify(token(header=header)).user == SUBJECT


# ---- attacks ----


def unsigned(algorithm: Any) -> str:
    return f"{part(json.dumps({'alg': algorithm}).encode())}.{part(json.dumps(claims()).encode())}."


def swapped(text: str, at: int, new: str) -> str:
    parts = text.split(".")
    parts[at] = new
    return ".".join(parts)


GOOD = token()
OTHER = part(json.dumps(claims(sub="root")).encode())

NO_TOKENS = {
    "empty": "",
    "a word": "hello",
    "two parts": "a.b",
    "dots": "..",
    "many dots": "." * 8_000,
    "an encrypted token": "a.b.c.d.e",
    "none": unsigned("none"),
    "None": unsigned("None"),
    "NONE": unsigned("NONE"),
    "no algorithm": unsigned(None),
    "a list of algorithms": unsigned(["HS256"]),
    "a number": unsigned(1),
    "none with a signature": swapped(GOOD, 0, part(b'{"alg":"none"}')),
    "truncated in the signature": GOOD[:-1],
    "truncated to the signature": GOOD.rpartition(".")[0] + ".",
    "truncated without the signature": GOOD.rpartition(".")[0],
    "truncated in the claims": GOOD[: len(GOOD) // 2],
    "other claims": swapped(GOOD, 1, OTHER),
    "another header": swapped(GOOD, 0, part(b'{"alg":"HS256"}')),
    "something after it": GOOD + ".",
    "something before it": " " + GOOD,
    "a line end": GOOD + "\n",
    "padding": GOOD + "=",
    "a character that base64 decoders skip": GOOD.replace(".", "!.", 1),
    "another spelling of the same bytes": GOOD[:-1] + chr(ord(GOOD[-1]) + 1),
    "a NUL": GOOD + "\0",
    "letters that look alike": GOOD.replace("e", "е", 1),
    "a lone surrogate": GOOD + "\udcff",
    "Bearer": f"Bearer {GOOD}",
    "1 MB": GOOD + "A" * 1_000_000,
    "1 MB of claims": token(claims(more="x" * 1_000_000)),
    "HS384": token(algorithm="HS384"),
    "HS512": token(algorithm="HS512"),
    "lower case": token(header={"alg": "hs256"}),
    "algorithm with a space": token(header={"alg": "HS256 "}),
    "two algorithms": token(header=b'{"alg":"HS256","alg":"none"}'),
    "two algorithms, one escaped": token(header=b'{"alg":"HS256","\\u0061lg":"none"}'),
    "crit": token(header={"alg": "HS256", "crit": ["b64"]}),
    "empty crit": token(header={"alg": "HS256", "crit": []}),
    "b64": token(header={"alg": "HS256", "b64": False}),
    "a kid that is no string": token(header={"alg": "HS256", "kid": {"$ne": 1}}),
    "an empty kid": token(header={"alg": "HS256", "kid": ""}),
    "a long kid": token(header={"alg": "HS256", "kid": "x" * 257}),
    "a logout token": token(header={"alg": "HS256", "typ": "logout+jwt"}),
    "a type that is no string": token(header={"alg": "HS256", "typ": 1}),
    "a header that is a list": token(header=b"[]"),
    "a header that is deep": token(header=b"[" * 5_000),
    "another secret": token(key=b"x" * 32),
    "an empty secret": token(key=b""),
}


@pytest.mark.parametrize("text", NO_TOKENS.values(), ids=NO_TOKENS)
def test_what_is_not_signed_by_us_is_refused(tokens: Tokens, text: str) -> None:
    assert tokens.verify(GOOD).user == SUBJECT
    assert refused(tokens, text).code == "token_invalid"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize("secret", [public_pem, lambda kind: public_pem(kind).strip(), lambda kind: jwk_set(jwk(kind))])
def test_a_public_key_is_no_secret(algorithm: str, secret: Any, clock: Clock) -> None:
    """Key confusion: whoever knows the public key signs with it as if it were a secret."""
    tokens = Tokens(Keys([key_of(algorithm)]), clock=clock)
    text = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + "." + part(json.dumps(claims()).encode())
    forged = f"{text}.{part(hmac.digest(secret(algorithm), text.encode(), hashlib.sha256))}"
    assert refused(tokens, forged).code == "token_invalid"
    der = private(algorithm).public_key()
    raw = der.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    forged = f"{text}.{part(hmac.digest(raw, text.encode(), hashlib.sha256))}"
    assert refused(tokens, forged).code == "token_invalid"


@pytest.mark.parametrize("named", ["RS256", "ES256", "EdDSA", "HS256", "PS256", "RS512", "ES384", "ES256K"])
@pytest.mark.parametrize("signed", ["RS256", "ES256", "EdDSA", "HS256"])
def test_a_key_is_used_with_its_own_algorithm_only(named: str, signed: str, clock: Clock) -> None:
    keys = Keys([*secret_keys(), *(key_of(each) for each in ASYMMETRIC)])
    text = token(header={"alg": named, "typ": "JWT"}, algorithm=signed)
    if named == signed:
        assert Tokens(keys, clock=clock).verify(text).user == SUBJECT
    else:
        assert refused(Tokens(keys, clock=clock), text).code == "token_invalid"


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "/dev/null", "' OR 1=1 --", "a; ls", "a\0", "http://127.0.0.1/", "A", "b", "a "]
)
def test_a_kid_names_a_key_and_is_nothing_else(kid: str, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwk_set(jwk("HS256", kid="a")))
    tokens = Tokens(Keys(read_keys(file)), clock=clock)
    assert tokens.verify(token(header={"alg": "HS256", "kid": "a"})).user == SUBJECT
    for key in (None, b"\0" * 32):
        assert refused(tokens, token(header={"alg": "HS256", "kid": kid}, key=key)).code == "token_invalid"


def test_keys_and_addresses_in_the_token_do_not_count(clock: Clock) -> None:
    tokens = Tokens(Keys([key_of("ES256")]), clock=clock)
    for extra in (
        {"jwk": jwk("ES256 other")},
        {"jku": "http://127.0.0.1:1/jwks.json"},
        {"x5u": "http://127.0.0.1:1/cert.pem"},
        {"x5c": ["AAAA"]},
    ):
        header = {"alg": "ES256", "typ": "JWT", **extra}
        forged = token(header=header, algorithm="ES256", key=private("ES256 other"))
        assert refused(tokens, forged).code == "token_invalid"
        assert tokens.verify(token(header=header, algorithm="ES256")).user == SUBJECT, "they are only ignored"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize(
    "forged", [b"", b"\0", bytes(64), b"\xff" * 64, bytes(256), b"\x30\x06\x02\x01\x00\x02\x01\x00"]
)
def test_signatures_out_of_nothing_are_refused(algorithm: str, forged: bytes, clock: Clock) -> None:
    """Among them r = s = 0, which a broken ECDSA took for any text ("psychic signatures")."""
    text = swapped(token(algorithm=algorithm), 2, part(forged))
    assert refused(Tokens(Keys([key_of(algorithm)]), clock=clock), text).code == "token_invalid"


@given(data=st.data())
def test_no_changed_character_is_overlooked(data: Any) -> None:
    tokens = Tokens(secret_keys(), clock=Clock())
    at = data.draw(st.integers(0, len(GOOD) - 1))
    other = data.draw(st.characters(max_codepoint=255).filter(lambda character: character != GOOD[at]))
    assert refused(tokens, GOOD[:at] + other + GOOD[at + 1 :]).code == "token_invalid"


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=300))
def test_any_text_is_answered(text: str) -> None:
    assert refused(Tokens(secret_keys(), clock=Clock()), text).code == "token_invalid"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["subscribe", "info", "x"]), inner),
        max_leaves=6,
    ),
    st.sampled_from(["sub", "exp", "iat", "nbf", "jti", "aud", "iss", "hub"]),
)
def test_any_value_of_a_claim_is_answered(value: Any, name: str) -> None:
    tokens = Tokens(secret_keys(), clock=Clock())
    said = answer(tokens, token({**claims(), name: value}))
    assert said in {"token_invalid", "token_expired"} or (isinstance(said, Identity) and said.user and said.expires)


# ---- claims ----

WRONG: list[tuple[dict[str, Any] | bytes, str]] = [
    (claims(sub=None), "sub of the token is not a string"),
    (claims(sub=""), "sub of the token is not a string of 1"),
    (claims(sub=42), "sub of the token is not a string"),
    (claims(sub=["42"]), "sub of the token is not a string"),
    (claims(sub="x" * 257), "sub of the token is not a string of 1 to 256"),
    (claims(sub="a\0b"), "sub of the token has a control"),
    (claims(sub="a\nb"), "sub of the token has a control"),
    (claims(sub="a\x7f"), "sub of the token has a control"),
    (claims(sub="\u202eadmin"), "sub of the token has a control or format"),
    (claims(sub="adm\u200bin"), "sub of the token has a control or format"),
    (claims(sub="a\u2028"), "sub of the token has a control or format"),
    (claims(sub="\ud800"), "not valid UTF-8"),
    (claims(jti=""), "jti of the token is not a string"),
    (claims(jti=7), "jti of the token is not a string"),
    (claims(jti="\x1b[2J"), "jti of the token has a control"),
    (claims(exp=None), "exp of the token is not a time"),
    (claims(exp="1900000000"), "exp of the token is not a time"),
    (claims(exp=True), "exp of the token is not a time"),
    (claims(exp=-1), "exp of the token is not a time"),
    (claims(exp=10**30), "exp of the token is not a time"),
    (b'{"sub":"42","exp":1e999}', "number that is too large"),
    (b'{"sub":"42","exp":Infinity}', "Infinity, which is not JSON"),
    (b'{"sub":"42","exp":NaN}', "NaN, which is not JSON"),
    (b'{"sub":"42","exp":null}', "exp of the token is not a time"),
    (claims(iat="now"), "iat of the token is not a time"),
    (claims(iat=NOW + 11), "issued in the future"),
    (claims(nbf=NOW + 11), "not valid yet"),
    (claims(nbf=[]), "nbf of the token is not a time"),
    (claims(aud="somebody"), "HUB_JWT_AUDIENCE"),
    (claims(aud=["a", "b"]), "HUB_JWT_AUDIENCE"),
    (claims(aud=7), "aud of the token is neither"),
    (claims(aud=[7]), "aud of the token is neither"),
    (b'{"sub":"42","sub":"1","exp":1900000000}', "member twice"),
    (b'{"sub":"42","\\u0073ub":"1","exp":1900000000}', "member twice"),
    (b'{"sub":"42","exp":1900000000,"hub":{"admin":false,"admin":true}}', "member twice"),
    (b'{"sub":"42","exp":1900000000,"hub":{},"hub":{"admin":true}}', "member twice"),
    (b'{"sub":"42","exp":1900000000,"x":[{"a":1,"a":1}]}', "member twice"),
    (b"[]", "not a JSON object"),
    (b"42", "not a JSON object"),
    (b"", "not JSON"),
    (b'{"sub":"42"', "not JSON"),
    (b'{"sub":"\xff","exp":1900000000}', "not JSON in UTF-8"),
    (b"\xef\xbb\xbf{}", "not JSON in UTF-8"),
    ('{"sub":"42","exp":1900000000}'.encode("utf-16"), "not JSON in UTF-8"),
    (b'{"sub":"42","exp":1900000000,"x":' + b"[" * 5_000 + b"]" * 900 + b"}", "not JSON"),
    (b'{"sub":"42","exp":' + b"9" * 5_000 + b"}", "can't be read"),
    (claims(hub=[]), "hub of the token is not an object"),
    (claims(hub="admin"), "hub of the token is not an object"),
    (b'{"sub":"42","exp":1900000000,"hub":null}', "hub of the token is not an object"),
    (claims(hub={"subscibe": []}), "did you mean subscribe?"),
    (claims(hub={"zzz": 1}), "it has subscribe, publish, admin, presence, info"),
    (claims(hub={"subscribe": "orders"}), "hub.subscribe of the token is not a list"),
    (claims(hub={"subscribe": {"orders": 1}}), "hub.subscribe of the token is not a list"),
    (claims(hub={"subscribe": [7]}), "hub.subscribe[0] of the token is not a string"),
    (claims(hub={"subscribe": ["a", ""]}), "hub.subscribe[1] of the token is empty"),
    (claims(hub={"subscribe": ["a//b"]}), "hub.subscribe[0] of the token has an empty segment"),
    (claims(hub={"subscribe": ["a*"]}), "has a '*' inside a segment"),
    (claims(hub={"subscribe": ["***"]}), "has a '*' inside a segment"),
    (claims(hub={"subscribe": ["a\0"]}), "has a control"),
    (claims(hub={"subscribe": ["\ud800"]}), "not valid UTF-8"),
    (claims(hub={"subscribe": ["user/\u200b1"]}), "has a control or format"),
    (claims(hub={"subscribe": ["x" * 257]}), "longer than 256 bytes"),
    (claims(hub={"subscribe": ["/".join("a" * 17)]}), "more than 16 segments"),
    (claims(hub={"subscribe": [f"t{n}" for n in range(MAX_PATTERNS + 1)]}), "has more than 128"),
    (claims(hub={"publish": ["a", "b*"]}), "hub.publish[1] of the token has a '*'"),
    (claims(hub={"admin": 1}), "hub.admin of the token is neither true nor false"),
    (claims(hub={"admin": "true"}), "hub.admin of the token is neither true nor false"),
    (claims(hub={"admin": [True]}), "hub.admin of the token is neither true nor false"),
    (b'{"sub":"42","exp":1900000000,"hub":{"admin":null}}', "hub.admin of the token is neither true nor false"),
    (claims(hub={"presence": 0}), "hub.presence of the token is neither true nor false"),
    (claims(hub={"info": []}), "hub.info of the token is not an object"),
    (claims(hub={"info": {"a": "x" * MAX_INFO_BYTES}}), "hub.info of the token has more than 1,024 bytes"),
    (claims(hub={"info": {"a": "ä" * 510}}), "hub.info of the token has more than 1,024 bytes"),
    (claims(hub={"info": {"a": ["\ud800"]}}), "hub.info of the token is not valid UTF-8"),
    (claims(hub={"info": {"\ud800": 1}}), "hub.info of the token is not valid UTF-8"),
]


@pytest.mark.parametrize(("payload", "why"), WRONG, ids=[f"{n} {why}" for n, (_, why) in enumerate(WRONG)])
def test_a_claim_that_breaks_its_rule_is_named(tokens: Tokens, payload: dict[str, Any] | bytes, why: str) -> None:
    error = refused(tokens, token(payload))
    assert error.code == "token_invalid"
    assert why in str(error)


def test_bounds_are_kept_to_the_last_one(tokens: Tokens) -> None:
    info = {"a": "x" * (MAX_INFO_BYTES - len('{"a":""}'))}
    patterns = [f"t{n}" for n in range(MAX_PATTERNS)]
    identity = tokens.verify(token(claims(hub={"info": info, "subscribe": patterns})))
    assert (identity.info, len(identity.subscribe)) == (info, MAX_PATTERNS)
    room = MAX_TOKEN_BYTES - len(token(claims(more="")))
    long = next(
        text
        for size in range(room * 3 // 4 + 4, 0, -1)
        if len(text := token(claims(more="x" * size))) <= MAX_TOKEN_BYTES
    )
    assert len(long) > MAX_TOKEN_BYTES - 4
    assert tokens.verify(long).user == SUBJECT


# ---- time ----


@pytest.mark.parametrize(
    ("payload", "late", "code"),
    [
        (claims(), 609.9, None),
        (claims(), 610, "token_expired"),
        (claims(exp=NOW - 9), 0, None),
        (claims(exp=NOW - 10), 0, "token_expired"),
        (claims(exp=0), 0, "token_expired"),
        (claims(nbf=NOW + 10), 0, None),
        (claims(iat=NOW + 10), 0, None),
        (claims(nbf=NOW + 20), 10, None),
        (claims(exp=NOW - 100, aud="x"), 0, "token_invalid"),  # a new one would be no better
    ],
)
def test_time_is_judged_with_leeway(
    tokens: Tokens, clock: Clock, payload: dict[str, Any], late: float, code: str | None
) -> None:
    clock.now += late
    if code is None:
        assert tokens.verify(token(payload)).expires == payload["exp"], "leeway prolongs nothing"
    else:
        assert refused(tokens, token(payload)).code == code


def test_a_cached_token_expires_all_the_same(tokens: Tokens, clock: Clock) -> None:
    assert tokens.verify(GOOD) is tokens.verify(GOOD)
    clock.now += 610
    assert refused(tokens, GOOD).code == "token_expired"


# ---- audience and issuer ----


@pytest.mark.parametrize(
    ("payload", "good"),
    [
        (claims(aud="hub", iss="me"), True),
        (claims(aud=["x", "hub"], iss="me"), True),
        (claims(aud="hub2", iss="me"), False),
        (claims(aud=["x"], iss="me"), False),
        (claims(aud=[], iss="me"), False),
        (claims(aud="Hub", iss="me"), False),
        (claims(iss="me"), False),
        (claims(aud="hub"), False),
        (claims(aud="hub", iss="you"), False),
        (claims(aud="hub", iss=["me"]), False),
        (claims(aud="hub", iss="me/"), False),
    ],
)
def test_audience_and_issuer_count_where_they_are_set(clock: Clock, payload: dict[str, Any], good: bool) -> None:
    tokens = Tokens(secret_keys(), audience="hub", issuer="me", clock=clock)
    if good:
        assert tokens.verify(token(payload)).user == SUBJECT
    else:
        assert refused(tokens, token(payload)).code == "token_invalid"


# ---- several keys ----


def test_a_token_finds_its_key_by_kid(clock: Clock) -> None:
    tokens = Tokens(Keys([key_of("ES256", "a"), key_of("ES256 other", "b")]), clock=clock)
    for kid, kind in (("a", "ES256"), ("b", "ES256 other")):
        header = {"alg": "ES256", "kid": kid}
        assert tokens.verify(token(header=header, algorithm="ES256", key=private(kind))).user == SUBJECT
    mixed = token(header={"alg": "ES256", "kid": "a"}, algorithm="ES256", key=private("ES256 other"))
    assert not isinstance(refused(tokens, mixed), UnknownKey)
    without = token(header={"alg": "ES256"}, algorithm="ES256", key=private("ES256 other"))
    assert tokens.verify(without).user == SUBJECT


def test_a_key_that_may_exist_elsewhere_is_told_apart(clock: Clock) -> None:
    tokens = Tokens(Keys([key_of("ES256", "a")]), clock=clock)
    other = private("ES256 other")
    assert isinstance(refused(tokens, token(header={"alg": "ES256", "kid": "b"}, algorithm="ES256")), UnknownKey)
    assert isinstance(refused(tokens, token(header={"alg": "ES256"}, algorithm="ES256", key=other)), UnknownKey)
    assert isinstance(refused(tokens, token(algorithm="EdDSA")), UnknownKey)


def test_a_token_without_kid_is_not_compared_with_many_keys(clock: Clock) -> None:
    tokens = Tokens(Keys([key_of("ES256", kid) for kid in "abcde"]), clock=clock)
    assert "several keys" in str(refused(tokens, token(algorithm="ES256")))
    assert tokens.verify(token(header={"alg": "ES256", "kid": "e"}, algorithm="ES256")).user == SUBJECT


def test_what_was_verified_with_old_keys_is_forgotten_with_them(tokens: Tokens) -> None:
    tokens.verify(GOOD)
    tokens.use(Keys([key_of("ES256")]))
    assert refused(tokens, GOOD).code == "token_invalid"
    kept = tokens.verify(token(algorithm="ES256"))
    assert kept


def test_the_same_keys_again_change_nothing(tokens: Tokens) -> None:
    before = tokens.verify(GOOD)
    tokens.use(secret_keys())
    assert tokens.verify(GOOD) is before


# ---- nothing leaks ----


def test_no_token_and_no_key_is_in_what_is_shown(tokens: Tokens, clock: Clock) -> None:
    texts = [*NO_TOKENS.values(), *(token(payload) for payload, _ in WRONG), token(claims(exp=1))]
    shown = [repr(tokens), repr(tokens.keys), str(tokens.keys), repr(vars(tokens))]
    for text in texts:
        error = refused(tokens, text)
        shown += [str(error), repr(error), "".join(traceback.format_exception(error))]
    tokens.verify(GOOD)
    shown.append(repr(vars(tokens)))
    assert SECRET not in "".join(shown)
    for text in [*texts, GOOD]:
        for piece in filter(lambda piece: len(piece) > 20, text.split(".")):
            assert not [each for each in shown if piece in each]
    pem = base64.b64encode(private_pem("ES256")).decode()
    key = key_of("ES256", "a")
    assert repr(key) == "Key(algorithm='ES256', kid='a')"
    assert pem not in repr(key)


def test_a_signature_helper_of_the_tests_signs_what_it_is_given() -> None:
    head, body, _ = GOOD.split(".")
    assert GOOD.endswith(part(signature("HS256", f"{head}.{body}".encode(), SECRET.encode())))
