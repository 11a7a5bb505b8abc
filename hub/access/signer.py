"""Making keys, and tokens that are signed with them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hub.access.base64url import encoded
from hub.access.keys import Key
from hub.errors import InvalidInput

SECRET_BYTES = 32
_MAKERS = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def make_key(algorithm: str) -> str:
    """Return a new key: for HS256 a secret of 43 characters, for ES256 and EdDSA a private key as PEM (PKCS #8).

    Raises:
        InvalidInput: *algorithm* is none of these.
    """
    if algorithm == "HS256":
        return secrets.token_urlsafe(SECRET_BYTES)
    if algorithm not in _MAKERS:
        raise InvalidInput("algorithm", "is none of HS256, ES256 and EdDSA")
    key: Any = _MAKERS[algorithm]()
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode().rstrip("\n")


def public_pem(key: Key) -> str:
    """Return the public half of *key* as PEM.

    Raises:
        InvalidInput: *key* is a secret.
    """
    if key.algorithm == "HS256":
        raise InvalidInput("key", "is a secret, which has no public half")
    pem: bytes = key.verifying.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode().rstrip("\n")


def sign(key: Key, claims: Mapping[str, Any]) -> str:
    """Return the token with *claims*, signed with *key*.

    Raises:
        InvalidInput: *key* can only verify, or *claims* are not JSON in UTF-8.
    """
    if key.signing is None:
        raise InvalidInput("key", "is a public key, which can't sign; the private one is needed")
    header = {"alg": key.algorithm, "typ": "JWT", **({} if key.kid is None else {"kid": key.kid})}
    try:
        signed = f"{_part(header)}.{_part(claims)}"
    except (TypeError, ValueError):
        raise InvalidInput("claims", "are not JSON in UTF-8") from None
    return f"{signed}.{encoded(key.sign(signed.encode()))}"


def _part(value: Mapping[str, Any]) -> str:
    text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return encoded(text.encode())
