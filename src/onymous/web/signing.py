"""Signatures."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_PREFIXES = ("/identity", "/webevents", "/nativeevents", "/config", "/tags")


def parse_basic(header: str) -> tuple[str, str] | None:
    """Return (key, secret) of a Basic header, or None."""
    scheme, _, data = header.partition(" ")
    if scheme.lower() != "basic" or len(data) > 2048:
        return None
    try:
        text = base64.b64decode(data.strip() + "==", validate=False).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    key, colon, secret = text.partition(":")
    return (key, secret) if colon else None


def parse_date(text: str) -> int | None:
    """Return milliseconds, or None."""
    text = text.strip()
    if re.fullmatch(r"\d{8}T\d{6}Z", text):
        at = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return int(at.timestamp() * 1000)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        pass
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError):
        return None


def verify(
    secret: bytes, method: str, date: str, path: str, query: str, body: bytes, signature: str
) -> bool:
    """Whether the signature fits one of the paths a client may have signed."""
    bare = path
    for prefix in _PREFIXES:
        if path.startswith(prefix + "/"):
            bare = path[len(prefix) :]
    for candidate in dict.fromkeys((bare, path)):
        for tail in dict.fromkeys((f"?{query}" if query else "", "")):
            text = f"{method}\n{date}\n{candidate}{tail}".encode("latin-1", "replace") + body
            want = hmac.digest(secret, text, "sha256").hex()
            if hmac.compare_digest(want.encode(), signature.lower().encode("latin-1", "replace")):
                return True
    return False
