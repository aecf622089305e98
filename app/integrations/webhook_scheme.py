"""Standard Webhooks' signatures: made for what is forwarded, checked on what comes in.

Owns keys, signed content and signatures of both schemes (``v1``: HMAC-SHA256, ``v1a``: Ed25519); compares in
constant time. Source: the specification at github.com/standard-webhooks/standard-webhooks.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SECRET_PREFIX = "whsec_"  # noqa: S105 - the beginning of one
PUBLIC_PREFIX = "whpk_"
FEWEST_BYTES = 16
MOST_SIGNATURES = 16  # a sender in the middle of a rotation sends two or three


def new_secret() -> str:
    """A signing secret as the specification writes them, of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def read_secret(text: str) -> bytes:
    """The key of ``whsec_<base64>``, or of the base64 alone. Raises ValueError."""
    return _decoded(text.removeprefix(SECRET_PREFIX))


def read_public_key(text: str) -> Ed25519PublicKey:
    """The key of ``whpk_<base64>``, or of the base64 alone. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(_decoded(text.removeprefix(PUBLIC_PREFIX)))


def signed_content(message_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    """What a signature covers."""
    return b".".join((message_id, timestamp, body))


def sign(key: bytes, content: bytes) -> str:
    """One signature, ``v1,...``."""
    return "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def holds(header: str, content: bytes, *, key: bytes | None, public_key: Ed25519PublicKey | None) -> bool:
    """Whether any of the signatures in the header is one of this content; of another version none counts."""
    found = False
    for candidate in header.split()[:MOST_SIGNATURES]:
        version, _, encoded = candidate.partition(",")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        if version == "v1" and key is not None:
            found |= hmac.compare_digest(signature, hmac.digest(key, content, "sha256"))
        elif version == "v1a" and public_key is not None:
            found |= _is_by(public_key, signature, content)
    return found


def _is_by(public_key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        public_key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(key) < FEWEST_BYTES:
        raise ValueError(f"holds fewer than {FEWEST_BYTES} bytes")
    return key
