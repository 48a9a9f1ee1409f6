"""Signatures of the HTTP contract: Standard Webhooks, an HMAC over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Sequence

from ...errors import SettingError

# Standard Webhooks asks for a window; five minutes is what its own libraries use.
SIGNATURE_WINDOW = 300


def signature_key(secret: str) -> bytes:
    """Turn a written secret into a key: base64 after ``whsec_``, else the characters themselves.

    Raises :class:`SettingError` for one that is empty or not base64.
    """
    encoded = secret.removeprefix("whsec_")
    try:
        key = secret.encode() if encoded == secret else base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise SettingError("a provider's secret must not be empty, and base64 after whsec_")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the Standard Webhooks signature ``v1,<base64 of HMAC-SHA256>`` of a body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def signature_headers(key: bytes, message_id: str, body: bytes) -> dict[str, str]:
    """Return the three headers that sign ``body`` now."""
    now = int(time.time())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(key, message_id, now, body),
    }


def is_signed(
    keys: Sequence[bytes], body: bytes, *, message_id: str, timestamp: str, signatures: str
) -> bool:
    """Tell whether one of ``keys`` signed these bytes within the last (or next) five minutes.

    The three strings are the values of the ``webhook-*`` headers, "" for an absent one.
    """
    if not message_id or not (timestamp.isascii() and timestamp.isdecimal()):
        return False
    if len(timestamp) > 12 or abs(time.time() - int(timestamp)) > SIGNATURE_WINDOW:
        return False
    given = signatures.encode("utf-8", "replace").split()
    wanted = [sign(key, message_id, int(timestamp), body).encode() for key in keys]
    return any(hmac.compare_digest(one, right) for one in given[:10] for right in wanted)
