"""Which keys can be used, from where, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, x25519

from hub.access.keys import MAX_FILE_BYTES, Keys, load_keys, published_keys, read_keys
from hub.errors import InvalidSettings
from tests.access.jwt import SECRET, jwk, jwk_set, key_of, part, private, private_pem, public_pem

KINDS = ("RS256", "ES256", "EdDSA")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def loaded(file: Path, data: bytes) -> Keys:
    file.write_bytes(data)
    keys = load_keys(None, file)
    assert keys is not None
    return keys


def why_not(file: Path, data: bytes) -> str:
    file.write_bytes(data)
    with pytest.raises(InvalidSettings) as caught:
        load_keys(None, file)
    (problem,) = caught.value.problems
    start = f"jwt_keys (HUB_JWT_KEYS): {file}: "
    assert problem.startswith(start)
    return problem.removeprefix(start)


def facts(keys: Keys) -> list[tuple[str, str | None]]:
    return [(key.algorithm, key.kid) for key in keys]


# ---- what can be used ----


def test_without_a_source_there_are_no_keys() -> None:
    assert load_keys() is None


def test_a_secret_is_one_key() -> None:
    keys = load_keys(SECRET)
    assert keys is not None
    assert facts(keys) == [("HS256", None)]
    assert SECRET not in repr(keys)


def test_two_sources_are_one_too_many(file: Path) -> None:
    with pytest.raises(InvalidSettings, match="HUB_JWT_KEYS"):
        load_keys(SECRET, file)


@pytest.mark.parametrize("secret", ["", "short", public_pem("ES256").decode(), SECRET + "\n"])
def test_a_weak_secret_is_refused_by_name_and_not_shown(secret: str) -> None:
    with pytest.raises(InvalidSettings, match="HUB_JWT_SECRET") as caught:
        load_keys(secret)
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["public PEM", "private PEM", "public JWK", "private JWK", "set"])
def test_every_form_of_a_key_is_the_same_key(file: Path, kind: str, form: str) -> None:
    data = {
        "public PEM": lambda: public_pem(kind),
        "private PEM": lambda: private_pem(kind),
        "public JWK": lambda: json.dumps(jwk(kind)).encode(),
        "private JWK": lambda: json.dumps(jwk(kind, secret=True)).encode(),
        "set": lambda: jwk_set(jwk(kind, use="sig", alg=kind, key_ops=["verify"], x5u="http://127.0.0.1:1/", more=1)),
    }[form]()
    assert loaded(file, data) == Keys([key_of(kind)])


@pytest.mark.parametrize("format", ["PKCS1", "openssl"])
def test_older_forms_of_pem_are_read(file: Path, format: str) -> None:
    kind, encoding = ("RS256", serialization.PrivateFormat.TraditionalOpenSSL)
    if format == "openssl":
        kind = "ES256"
    old = private(kind).private_bytes(serialization.Encoding.PEM, encoding, serialization.NoEncryption())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert loaded(file, parameters + old) == Keys([key_of(kind)])


def test_a_private_key_is_not_kept_where_only_its_public_half_is_needed(file: Path) -> None:
    assert [key.signing for key in loaded(file, private_pem("ES256"))] == [None]
    assert [key.signing is not None for key in read_keys(file)] == [True]


def test_a_file_may_have_several_keys(file: Path) -> None:
    pem = b"a comment\n" + b"\n".join([public_pem("ES256"), public_pem("ES256 other"), private_pem("EdDSA")])
    assert facts(loaded(file, pem)) == [("ES256", None), ("ES256", None), ("EdDSA", None)]
    several = jwk_set(jwk("RS256", kid="a"), jwk("ES256", kid="a"), jwk("ES256 other", kid="b"), jwk("HS256", kid="c"))
    assert facts(loaded(file, several)) == [("RS256", "a"), ("ES256", "a"), ("ES256", "b"), ("HS256", "c")]


def test_the_same_key_twice_is_one(file: Path) -> None:
    assert len(loaded(file, public_pem("ES256") + private_pem("ES256"))) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "PS256"},
        {"alg": "RS512"},
        {"alg": "RSA-OAEP"},
        {"alg": "none"},
        {"alg": "HS256"},
    ],
)
def test_keys_for_other_purposes_are_left_out(file: Path, other: dict[str, Any]) -> None:
    assert facts(loaded(file, jwk_set(jwk("RS256", kid="x", **other), jwk("ES256", kid="y")))) == [("ES256", "y")]
    assert "no key that can be used" in why_not(file, jwk_set(jwk("RS256", **other)))


@pytest.mark.parametrize("kind", ["P-384", "secp256k1"])
def test_keys_on_other_curves_are_left_out_of_a_set(file: Path, kind: str) -> None:
    assert facts(loaded(file, jwk_set(jwk(kind), jwk("ES256")))) == [("ES256", None)]


def test_a_secret_for_another_algorithm_is_left_out(file: Path) -> None:
    assert "no key that can be used" in why_not(file, jwk_set(jwk("HS256", alg="HS512")))


# ---- what can't ----


def damaged(kind: str, member: str) -> bytes:
    return jwk_set(jwk(kind, **{member: "AAAA"}))


def pem_of(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return made


def encrypted(form: serialization.PrivateFormat) -> bytes:
    password = serialization.BestAvailableEncryption(b"pw")
    made: bytes = private("ES256").private_bytes(serialization.Encoding.PEM, form, password)
    return made


REFUSED = {
    "empty": (b"", "neither PEM nor a JWK set"),
    "a secret": (SECRET.encode(), "neither PEM nor a JWK set"),
    "large": (b"{" + b" " * MAX_FILE_BYTES, "larger than"),
    "RSA 1024": (public_pem("RSA 1024"), "key 1 has 1,024 bits"),
    "RSA 1024, second": (public_pem("ES256") + private_pem("RSA 1024"), "key 2 has 1,024 bits"),
    "P-384": (public_pem("P-384"), "key 1 is on the curve secp384r1"),
    "Ed448": (pem_of(ed448.Ed448PrivateKey.generate()), "not for signatures with"),
    "X25519": (pem_of(x25519.X25519PrivateKey.generate()), "not for signatures with"),
    "encrypted": (encrypted(serialization.PrivateFormat.PKCS8), "key 1 is encrypted"),
    "encrypted, older": (encrypted(serialization.PrivateFormat.TraditionalOpenSSL), "key 1 is encrypted"),
    "certificate": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "is a certificate"),
    "ssh": (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "is a OPENSSH"),
    "damaged PEM": (public_pem("ES256").replace(b"M", b"N"), "key 1 can't be read"),
    "no JSON": (b"{", "is not JSON"),
    "no keys": (jwk_set(), "no key that can be used"),
    "keys that are no list": (b'{"keys":{}}', "no list of keys"),
    "no set": (b'{"a":1}', "no list of keys"),
    "twice": (b'{"keys":[],"keys":[]}', "a member twice"),
    "key that is no object": (b'{"keys":["a"]}', "key 1 is not a JSON object"),
    "no kty": (b'{"keys":[{"k":"a"}]}', "key 1 has no kty"),
    "kty that is no string": (b'{"keys":[{"kty":["RSA"]}]}', "key 1 has no kty"),
    "kid that is no string": (jwk_set(jwk("ES256", kid=7)), "key 1 has a kid that is not"),
    "empty kid": (jwk_set(jwk("ES256", kid="")), "key 1 has a kid that is not"),
    "weak RSA": (jwk_set(jwk("ES256"), jwk("RSA 1024")), "key 2 has 1,024 bits"),
    "short secret": (jwk_set({"kty": "oct", "k": part(b"x" * 31)}), "key 1 has 31 bytes"),
    "secret in base64": (jwk_set({"kty": "oct", "k": "ab+/" * 20}), "has no k in base64url"),
    "no secret": (jwk_set({"kty": "oct"}), "has no k in base64url"),
    "point off the curve": (damaged("ES256", "x"), "key 1 can't be read"),
    "numbers": (jwk_set(jwk("ES256", x=7)), "key 1 can't be read"),
    "without a member": (jwk_set({"kty": "RSA", "e": "AQAB"}), "key 1 can't be read"),
    "other private half": (jwk_set({**jwk("EdDSA", secret=True), "x": part(bytes(32))}), "key 1 can't be read"),
    "e = 1": (jwk_set(jwk("RS256", e="AQ")), "key 1 can't be read"),
    "two with one kid": (jwk_set(jwk("ES256", kid="a"), jwk("ES256 other", kid="a")), "2 keys for ES256 with the kid"),
    "many": (jwk_set(*[{"kty": "x"}] * 101), "more than 100 keys"),
    "many without kid": (
        jwk_set(*({"kty": "oct", "k": part(bytes([n]) * 32)} for n in range(5))),
        "5 keys for HS256 without a kid; 4 are the most",
    ),
}


@pytest.mark.parametrize(("data", "why"), REFUSED.values(), ids=REFUSED)
def test_a_key_that_can_not_be_used_prevents_the_start(file: Path, data: bytes, why: str) -> None:
    said = why_not(file, data)
    assert why in said
    assert SECRET not in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(InvalidSettings, match=why):
            load_keys(None, path)


# ---- what an issuer publishes ----


def test_one_broken_key_does_not_spoil_the_others() -> None:
    data = jwk_set(
        jwk("RSA 1024", kid="weak"),
        jwk("RS256", kid="a"),
        jwk("RS256", kid="enc", use="enc"),
        jwk("ES256", secret=True, kid="private"),
        jwk("HS256", kid="secret"),
        jwk("ES256", kid="b"),
        jwk("ES256 other", kid="b"),
        7,
    )
    keys, faults = published_keys(data)
    assert facts(keys) == [("RS256", "a"), ("ES256", "b")]
    assert keys == Keys([key_of("RS256", "a"), key_of("ES256", "b")]), "the first of two with one id"
    assert [fault.partition(" ")[2].partition(" ")[0] for fault in faults] == ["1", "4", "5", "8"]
    assert "secret" in faults[1]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"<html>", jwk_set(), jwk_set(jwk("HS256")), jwk_set(jwk("RSA 1024")), jwk_set(*[7] * 101)]
)
def test_a_publication_without_a_usable_key_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"is|has"):
        published_keys(data)


def test_keys_are_equal_if_they_verify_the_same() -> None:
    assert Keys([key_of("ES256", "a"), key_of("RS256")]) == Keys([key_of("RS256"), key_of("ES256", "a")])
    assert Keys([key_of("ES256", "a")]) != Keys([key_of("ES256", "b")])
    assert Keys([key_of("ES256")]) != Keys([key_of("ES256 other")])
    assert len({Keys([key_of("ES256")]), Keys([key_of("ES256")])}) == 1


def test_a_secret_that_can_not_be_used_says_how_to_get_one():
    with pytest.raises(InvalidSettings) as caught:
        load_keys("short")
    why = "jwt_secret (HUB_JWT_SECRET): has 5 bytes, and needs at least 32: hub token --make-key HS256 makes one"
    assert why in str(caught.value)
    assert "short" not in str(caught.value)
