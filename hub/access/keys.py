"""The keys for tokens. Each key has one algorithm: what a token says of its own only selects among the keys."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from hub.access.base64url import decoded
from hub.access.key_source import MIN_SECRET_BYTES, check_secret
from hub.access.strict_json import object_in
from hub.errors import InvalidSettings

ALGORITHMS: dict[str, Algorithm] = {
    "HS256": HMACAlgorithm(HMACAlgorithm.SHA256),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
}
MAX_FILE_BYTES = 1024 * 1024
MAX_KEYS = 100
MAX_KID = 256
MIN_RSA_BITS, MAX_RSA_BITS = 2_048, 8_192  # each token costs the more, the larger the key is
MAX_TRIED = 4
"""Keys that one token is compared with, at most."""

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_PUBLIC = {"PUBLIC KEY", "RSA PUBLIC KEY"}
_PRIVATE = {"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"}
_PUBLIC_MEMBERS = {"kty", "crv", "x", "y", "n", "e"}
_UNREADABLE = "can't be read: a member is missing, damaged or does not fit the others"
_CURVES = {("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and the only algorithm that it is used with.

    Attributes:
        algorithm: one of `ALGORITHMS`.
        kid: the id by which tokens name it; None: it has none.
        digest: what distinguishes it from other keys.
        verifying: the secret, or the public key.
        signing: the secret, or the private key; None: unknown.
    """

    algorithm: str
    kid: str | None
    digest: bytes = field(repr=False)
    verifying: Any = field(repr=False, compare=False)
    signing: Any = field(default=None, repr=False, compare=False)

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Return whether *signature* is that of *signed* with this key."""
        return ALGORITHMS[self.algorithm].verify(signed, self.verifying, signature)

    def sign(self, text: bytes) -> bytes:
        """Return the signature of *text*; `signing` must be known."""
        return ALGORITHMS[self.algorithm].sign(text, self.signing)


class Keys:
    """An immutable collection of the keys that tokens are verified with; private keys are left out.

    Raises:
        ValueError: there are too many, or some between which no token can choose.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(dict.fromkeys(replace(key, signing=None) for key in keys))
        if len(self._keys) > MAX_KEYS:
            raise ValueError(f"has more than {MAX_KEYS} keys")
        for (algorithm, kid), count in Counter((key.algorithm, key.kid) for key in self._keys).items():
            if kid is not None and count > 1:
                raise ValueError(f"has {count} keys for {algorithm} with the kid {kid!r}")
            if count > MAX_TRIED:
                raise ValueError(f"has {count} keys for {algorithm} without a kid; {MAX_TRIED} are the most")

    def __repr__(self) -> str:
        return f"Keys([{', '.join(map(repr, self._keys))}])"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and set(self._keys) == set(other._keys)

    def __hash__(self) -> int:
        return hash(frozenset(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Return the keys that a token with this header can mean.

        A key without an id is meant by every token with its algorithm; a token without one means every such key.
        """
        return [
            key
            for key in self._keys
            if key.algorithm == algorithm and (kid is None or key.kid is None or key.kid == kid)
        ]


def load_keys(secret: str | None = None, file: Path | None = None) -> Keys | None:
    """Return the keys that the settings `jwt_secret` and `jwt_keys` name; None if both are None.

    Raises:
        InvalidSettings: the secret or a key in the file can't be used; it names the setting, and shows no key.
    """
    if secret is not None and file is not None:
        raise InvalidSettings(["jwt_keys (HUB_JWT_KEYS): jwt_secret is set too; the keys have one source"])
    if secret is not None:
        try:
            return Keys([secret_key(secret)])
        except ValueError as error:
            raise InvalidSettings([f"jwt_secret (HUB_JWT_SECRET): {error}"]) from None
    if file is None:
        return None
    try:
        return Keys(read_keys(file))
    except ValueError as error:
        raise InvalidSettings([f"jwt_keys (HUB_JWT_KEYS): {file}: {error}"]) from None


def secret_key(secret: str) -> Key:
    """Return the key of a secret for HS256, which has no id.

    Raises:
        ValueError: the rule that it breaks.
    """
    return _symmetric(check_secret(secret).encode(), None)


def of_material(material: object, kid: str | None = None) -> Key:
    """Return the key of *material*, a public or private key of `cryptography`.

    Raises:
        ValueError: it is for no algorithm of ours, or weak.
    """
    public, signing = material, None
    if isinstance(material, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        public, signing = material.public_key(), material
    if isinstance(public, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
            raise _Fault(f"has {public.key_size:,} bits: RSA keys have {MIN_RSA_BITS:,} to {MAX_RSA_BITS:,}")
        algorithm = "RS256"
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if not isinstance(public.curve, ec.SECP256R1):
            raise _Fault(f"is on the curve {public.curve.name}; ES256 is on P-256")
        algorithm = "ES256"
    elif isinstance(public, ed25519.Ed25519PublicKey):
        algorithm = "EdDSA"
    else:
        raise _Fault("is not for signatures with RS256, ES256 or EdDSA")
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(algorithm, kid, hashlib.sha256(der).digest(), public, signing)


def read_keys(file: Path) -> list[Key]:
    """Return the keys in *file*: PEM, a JWK or a JWK set, of at most 1 MiB. It has at least one key.

    Raises:
        ValueError: what is wrong, for a sentence that begins with the name of the file. No part of a key is in it.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES:,} bytes")
    if _PEM.search(data):
        keys = _in_pem(data)
    elif data.lstrip().startswith(b"{"):
        keys, faults = _in_jwk_set(data, published=False)
        if faults:
            raise ValueError("; ".join(faults[:3]))
    else:
        raise ValueError("is neither PEM nor a JWK set")
    if not keys:
        raise ValueError(f"has no key that can be used: {', '.join(ALGORITHMS)} with keys for signatures")
    return keys


class Published(NamedTuple):
    """What a published JWK set holds.

    Attributes:
        keys: those that can be used.
        faults: what is wrong with others, a sentence each; keys for other purposes are not mentioned.
    """

    keys: Keys
    faults: Sequence[str]


def published_keys(data: bytes) -> Published:
    """Return what can be used of a JWK set that an issuer publishes: one broken key does not spoil the others.

    Raises:
        ValueError: it is no JWK set, has no key that can be used, or too many.
    """
    found, faults = _in_jwk_set(data, published=True)
    keys = dict[tuple[str, str | None, bytes], Key]()
    for key in found:
        # Of two keys with one id the first counts, as it does for most readers.
        keys.setdefault((key.algorithm, key.kid, b"" if key.kid else key.digest), key)
    if not keys:
        raise ValueError("; ".join(faults[:3]) or "has no key that can be used")
    return Published(Keys(keys.values()), faults)


# ---- PEM ----


def _in_pem(data: bytes) -> list[Key]:
    keys = list[Key]()
    for number, match in enumerate(_PEM.finditer(data), 1):
        try:
            # openssl writes parameters before a key.
            keys += [] if match[1] == b"EC PARAMETERS" else [_of_pem(match[1].decode(), match[0])]
        except _Fault as fault:
            raise ValueError(f"key {number} {fault}") from None
    return keys


def _of_pem(label: str, block: bytes) -> Key:
    if label == "ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in block.partition(b"\n\n")[0]:
        raise _Fault("is encrypted: the hub has no password")
    if label == "CERTIFICATE":
        raise _Fault("is a certificate; write its key: openssl x509 -pubkey -noout")
    if label not in _PUBLIC | _PRIVATE:
        raise _Fault(f"is a {label}, which is neither a public nor a private key")
    try:
        if label in _PUBLIC:
            return of_material(serialization.load_pem_public_key(block), None)
        return of_material(serialization.load_pem_private_key(block, password=None), None)
    except _Fault:
        raise
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _Fault("can't be read: it is damaged, or of a kind that is unknown") from None


class _Fault(ValueError):
    """What is wrong with a key, for a sentence that begins with the key."""


def _symmetric(secret: bytes, kid: str | None) -> Key:
    return Key("HS256", kid, hashlib.sha256(b"HS256\0" + secret).digest(), secret, secret)


# ---- JWK (RFC 7517, 7518, 8037) ----


def _in_jwk_set(data: bytes, *, published: bool) -> tuple[list[Key], list[str]]:
    """Return the keys of a JWK set (or of a single JWK) for signatures with our algorithms, and faults of others.

    Raises:
        ValueError: it is no JWK set, or has too many keys.
    """
    whole = object_in(data)
    listed = whole.get("keys") if "keys" in whole or "kty" not in whole else [whole]
    if not isinstance(listed, list):
        raise ValueError("is not a JWK set: it has no list of keys")  # noqa: TRY004 - content, not a type of Python
    if len(listed) > MAX_KEYS:
        raise ValueError(f"has more than {MAX_KEYS} keys")
    keys, faults = list[Key](), list[str]()
    for number, jwk in enumerate(listed, 1):
        try:
            if (key := _of_jwk(jwk, published=published)) is not None:
                keys.append(key)
        except _Fault as fault:
            faults.append(f"key {number} {fault}")
    return keys, faults


def _of_jwk(jwk: object, *, published: bool) -> Key | None:
    """Return the key of *jwk*; None if it is for another purpose or algorithm."""
    if not isinstance(jwk, dict):
        raise _Fault("is not a JSON object")
    algorithm, kid = _algorithm_of(jwk), jwk.get("kid")
    if algorithm is None:
        return None
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise _Fault(f"has a kid that is not a string of 1 to {MAX_KID} characters")
    if published and (algorithm == "HS256" or "d" in jwk):
        raise _Fault("is secret, and published nevertheless: it must be replaced")
    if algorithm == "HS256":
        return _symmetric(_secret_of(jwk), kid)
    key = _read_jwk(algorithm, jwk, kid)
    if "d" in jwk and key != _read_jwk(algorithm, {name: jwk[name] for name in _PUBLIC_MEMBERS & jwk.keys()}, kid):
        raise _Fault(_UNREADABLE)  # some versions of PyJWT take two halves that do not belong together
    return key


def _read_jwk(algorithm: str, jwk: dict[str, Any], kid: str | None) -> Key:
    try:
        material = ALGORITHMS[algorithm].from_jwk(jwk)
    except Exception:  # of many kinds, and some quote the key
        raise _Fault(_UNREADABLE) from None
    return of_material(material, kid)


def _algorithm_of(jwk: dict[str, Any]) -> str | None:
    """Return the algorithm that a JWK is for; None: it is none of ours, or not for verifying."""
    kind, use, operations = jwk.get("kty"), jwk.get("use"), jwk.get("key_ops")
    curve = jwk.get("crv")
    if not isinstance(kind, str):
        raise _Fault("has no kty")
    if use not in (None, "sig") or (
        isinstance(operations, list) and not {"verify", "sign"}.intersection(map(str, operations))
    ):
        return None
    bound = {"oct": "HS256", "RSA": "RS256"}.get(kind) or (
        _CURVES.get((kind, curve)) if isinstance(curve, str) else None
    )
    # Keys for PS256, or for HS512, stay what they are: a key has one algorithm.
    return bound if jwk.get("alg") in (None, bound) else None


def _secret_of(jwk: dict[str, Any]) -> bytes:
    try:
        secret = decoded(jwk["k"])
    except (KeyError, ValueError):
        raise _Fault("has no k in base64url") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise _Fault(f"has {len(secret)} bytes, and needs at least {MIN_SECRET_BYTES}")
    return secret
