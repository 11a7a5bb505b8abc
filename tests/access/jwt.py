"""Keys and tokens for tests; tokens are put together by hand, so that they can be wrong in every way."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hub.access.keys import Key, Keys, of_material, secret_key

NOW = 1_800_000_000.0
SECRET = "Vn3oE9Zq-0Tj7uPxk2LhYcWd5RbMfGsA81iQyKtC4wU"
SUBJECT = "42"


@cache
def private(kind: str) -> Any:
    """Return the private key of *kind*, the same one each time."""
    return {
        "RS256": lambda: rsa.generate_private_key(65_537, 2_048),
        "RSA 1024": lambda: rsa.generate_private_key(65_537, 1_024),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ES256 other": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[kind]()


def private_pem(kind: str) -> bytes:
    pem: bytes = private(kind).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def public_pem(kind: str) -> bytes:
    pem: bytes = (
        private(kind)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return pem


def jwk(kind: str, *, secret: Any = False, **members: Any) -> dict[str, Any]:
    """Return the key of *kind* as a JWK, its public half unless *secret*."""
    if kind == "HS256":
        return {"kty": "oct", "k": part(SECRET.encode()), **members}
    makers: dict[str, Any] = {"RS": jwt.algorithms.RSAAlgorithm, "ES": jwt.algorithms.ECAlgorithm}
    makers |= {"P-": makers["ES"], "se": makers["ES"], "Ed": jwt.algorithms.OKPAlgorithm}
    key = private(kind) if secret else private(kind).public_key()
    made: dict[str, Any] = json.loads(makers[kind[:2]].to_jwk(key))
    made.pop("key_ops", None)
    return {**made, **members}


def jwk_set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changed: Any) -> dict[str, Any]:
    """Return claims of a good token; what is None is left out."""
    return {name: value for name, value in {"sub": SUBJECT, "exp": NOW + 600, **changed}.items() if value is not None}


def signature(algorithm: str, signed: bytes, key: Any) -> bytes:
    made: bytes = jwt.algorithms.get_default_algorithms()[algorithm].sign(signed, key)
    return made


def token(
    payload: dict[str, Any] | bytes | None = None,
    *,
    header: dict[str, Any] | bytes | None = None,
    algorithm: str = "HS256",
    key: Any = None,
) -> str:
    """Return a token with *header* and *payload* as they are, signed with *key*, by default that of *algorithm*."""
    head = {"alg": algorithm, "typ": "JWT"} if header is None else header
    body = claims() if payload is None else payload
    parts = [part(each if isinstance(each, bytes) else json.dumps(each).encode()) for each in (head, body)]
    signed = ".".join(parts).encode()
    if key is None:
        key = SECRET.encode() if algorithm.startswith("HS") else private(algorithm)
    return f"{signed.decode()}.{part(signature(algorithm, signed, key))}"


def secret_keys() -> Keys:
    return Keys([secret_key(SECRET)])


def key_of(kind: str, kid: str | None = None) -> Key:
    return of_material(private(kind), kid)
